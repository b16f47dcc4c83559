import type { Figures } from './job.ts'
import { ours, targets, type Metric, type Scenario } from './scenarios.ts'

/** A run is called disturbed if other processes had more than this share of a core. */
export const disturbance = 0.1

/** The figures of all runs, by scenario and peer. */
export type Results = Map<string, Map<string, Figures[]>>

function spread (values: number[]): { median: number, least: number, most: number } {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
  return { median, least: sorted[0]!, most: sorted.at(-1)! }
}

/** Formats three significant digits, which is more than the runs agree in. */
function show (value: number): string {
  if (value >= 1_000) return Math.round(value).toLocaleString('en')
  return String(Number(value.toPrecision(3)))
}

/** @returns the median, and the least and the most in brackets if there was more than one run */
function cell (values: number[], by = 1): string {
  const { median, least, most } = spread(values.map(value => value / by))
  return values.length === 1 ? show(median) : `${show(median)} (${show(least)}–${show(most)})`
}

const valueOf = (figures: Figures[] | undefined, metric: keyof Figures): number | undefined =>
  figures === undefined ? undefined : spread(figures.map(figure => figure[metric]!)).median

const plural = (unit: string): string => unit === 'delivery' ? 'deliveries' : `${unit}s`

const bold = (name: string, text: string): string => name.startsWith(ours) ? `**${text}**` : text

function table (scenario: Scenario, names: string[], results: Map<string, Figures[]>): string {
  const { id, title, metric, unit } = scenario
  const columns: [string, (figures: Figures[]) => string][] = []
  if (metric === 'p99') columns.push(['p50 ms', figures => cell(figures.map(({ p50 }) => p50!))], ['p99 ms', figures => cell(figures.map(({ p99 }) => p99!))])
  if (metric === 'bytes') columns.push(['kB resident per connection', figures => cell(figures.map(({ bytes }) => bytes!), 1_000)])
  if (metric === 'took') {
    columns.push(['ms to the last end', figures => cell(figures.map(({ took }) => took!))], ['longest stall of the loop, ms', figures => cell(figures.map(({ stall }) => stall!))])
    columns.push(['bytes per connection', figures => cell(figures.map(({ bytes }) => bytes!))])
  }
  if (metric === 'share') columns.push([`${scenario.redis === true ? 'memory of Redis' : 'heap and external'}, × the bytes of the messages`, figures => cell(figures.map(({ share }) => share!))])
  columns.push([`µs CPU per ${unit}`, figures => cell(figures.map(({ cpu }) => cpu))])
  if ([...results.values()].flat().every(({ kernel }) => kernel !== undefined)) columns.push(['of it the kernel', figures => cell(figures.map(({ kernel }) => kernel!))])
  if (scenario.redis === true && scenario.kind === 'rounds') columns.push(['µs CPU of Redis per broadcast', figures => cell(figures.map(({ redis }) => redis!))])
  if (scenario.workers !== undefined) columns.push(['of the busiest process', figures => cell(figures.map(({ busiest }) => busiest!))])
  if (scenario.workers !== undefined || metric === 'capacity') columns.push([`${plural(unit)} per CPU second of the busiest process`, figures => cell(figures.map(({ capacity }) => capacity!))])
  if (scenario.workers !== undefined) columns.push(['µs CPU of the primary per broadcast', figures => cell(figures.map(({ primary }) => primary!))])
  if (scenario.joins !== undefined) columns.push(['the joins left in', figures => cell(figures.map(({ gross }) => gross!))])
  if (scenario.kind === 'storm') {
    columns.push(['the joins left in', figures => cell(figures.map(({ gross }) => gross!))])
    columns.push(['p99 ms of the other members', figures => cell(figures.map(({ p99 }) => p99!))], ['during joins without messages', figures => cell(figures.map(({ joinsP99 }) => joinsP99!))], ['without joins', figures => cell(figures.map(({ calmP99 }) => calmP99!))])
  }
  if (metric !== 'bytes' && metric !== 'share' && metric !== 'p99' && metric !== 'took') columns.push([`${plural(unit)}/s`, figures => show(spread(figures.map(({ perSecond }) => perSecond)).median)])
  if (scenario.deflate === true) columns.push(['compressed', figures => `${Math.round(100 * spread(figures.map(({ compressed }) => compressed!)).median)} %`])

  const reference = valueOf(results.get(ours) ?? [...results].find(([name]) => name.startsWith(ours))?.[1], metric)
  const head = ['server', ...columns.map(([name]) => name), `ratio to ${ours}`]
  const rows = names.filter(name => results.has(name)).map(name => {
    const figures = results.get(name)!
    const ratio = reference === undefined ? '–' : `${show(valueOf(figures, metric)! / reference)} ×`
    return [bold(name, name), ...columns.map(([, text]) => text(figures)), ratio]
  })
  return [`## ${id}`, '', `${title}.`, '', ...[head, head.map(() => '---'), ...rows].map(cells => `| ${cells.join(' | ')} |`)].join('\n')
}

function summary (results: Results): string {
  const rows: string[][] = []
  for (const { scenario, against, figure, bound, at } of targets) {
    const of = results.get(scenario)
    if (of === undefined) continue
    const metric = figure ?? metrics.get(scenario)!
    const mine = valueOf(of.get(ours), metric)
    const theirs = 'peer' in against ? valueOf(of.get(against.peer), metric) : 'scenario' in against ? valueOf(results.get(against.scenario)?.get(ours), metric) : 'figure' in against ? valueOf(of.get(ours), against.figure) : 1
    if (mine === undefined || theirs === undefined) continue
    const ratio = mine / theirs
    const met = at === 'most' ? ratio <= bound : ratio >= bound
    const wanted = `${at === 'most' ? '≤' : '≥'} ${show(bound)} × ${'peer' in against ? against.peer : 'scenario' in against ? against.scenario : against.named}`
    rows.push([scenario, wanted, `${show(ratio)} ×`, met ? 'yes' : '**no**'])
  }
  if (rows.length === 0) return ''
  const head = ['scenario', 'target', 'measured', 'met']
  return ['## Targets', '', ...[head, head.map(() => '---'), ...rows].map(cells => `| ${cells.join(' | ')} |`)].join('\n')
}

/** Leaves out disturbed runs, unless all were disturbed. Only the other processes decide, never the result. */
function calm (results: Results): Results {
  return new Map([...results].map(([id, of]) => [id, new Map([...of].map(([name, figures]) => {
    const quiet = figures.filter(({ others }) => others! <= disturbance)
    return [name, quiet.length > 0 ? quiet : figures]
  }))]))
}

/** Lists the runs that say more about other processes than about the server. */
function disturbed (results: Results): string {
  const lines: string[] = []
  for (const [id, of] of results) {
    for (const [name, figures] of of) {
      const count = figures.filter(({ others }) => others! > disturbance).length
      if (count > 0) lines.push(`- ${id} ${name}: ${count} of ${figures.length} runs, up to ${Math.round(100 * Math.max(...figures.map(({ others }) => others!)))} %`)
    }
  }
  return lines.length === 0 ? '' : ['## Disturbed', '', `Other processes had more than ${100 * disturbance} % of the core of the server or of the load generator. Such runs do not count above, unless all runs of a server were disturbed.`, '', ...lines].join('\n')
}

const metrics = new Map<string, Metric>()

export function report (scenarios: Scenario[], names: string[], all: Results, versions: string[], failures: string[]): string {
  const results = calm(all)
  for (const { id, metric } of scenarios) metrics.set(id, metric)
  const parts = [
    '# Benchmark',
    versions.map(line => `- ${line}`).join('\n'),
    'The method: [README.md](../README.md). Medians, with the least and the most of all runs in brackets.',
    ...scenarios.filter(({ id }) => results.get(id)!.size > 0).map(scenario => table(scenario, names, results.get(scenario.id)!)),
    summary(results),
    disturbed(all),
    failures.length === 0 ? '' : ['## Failed', '', ...failures.map(line => `- ${line}`)].join('\n')
  ]
  return parts.filter(part => part !== '').join('\n\n') + '\n'
}
