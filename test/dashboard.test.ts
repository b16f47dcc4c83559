import { readFile } from 'node:fs/promises'
import { Registry } from 'prom-client'
import t, { type Test } from 'tap'
import { createRefusals } from '../lib/limits/refusals.ts'
import { roomsMetrics } from '../lib/metrics/index.ts'
import { createRooms } from './helpers/app.ts'
import { parseMetrics } from './helpers/prometheus.ts'

interface Target { expr: string, refId: string, datasource: object }
interface Panel { id: number, type: string, title: string, gridPos: { x: number, y: number, w: number, h: number }, targets?: Target[] }
interface Variable { name: string, type: string, query: string | { query: string } }

const dashboard = JSON.parse(await readFile('docs/grafana-dashboard.json', 'utf8')) as { schemaVersion: number, panels: Panel[], templating: { list: Variable[] } }
const { panels, templating: { list: variables } } = dashboard
const variable = (name: string): string => `\${${name}}`
const prefix = variables.find(({ name }) => name === 'prefix')!.query as string
const expressions = panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr))
const queries = variables.filter(({ type }) => type === 'query').map(({ query }) => (query as { query: string }).query)
const alerts = [...(await readFile('docs/observability.md', 'utf8')).matchAll(/^ +expr: (.*)$/gm)].map(match => match[1]!)

/** The names of the metrics in an expression. */
const metricsIn = (expression: string): string[] => [...expression.replaceAll(variable('prefix'), prefix).matchAll(/fastify_rooms_\w+/g)].map(match => match[0])

/** The names of samples, and the labels of each, in a scrape with all options on. */
async function scrape (t: Test): Promise<{ metrics: Set<string>, names: Set<string>, labels: Map<string, string[]> }> {
  const app = await createRooms(t)
  const registry = new Registry()
  roomsMetrics(app.rooms, { registry, topics: ['*'] })
  const { types, samples } = parseMetrics(await registry.metrics())
  const labels = new Map([...samples.keys()].map(sample => [sample.replace(/\{.*/, ''), [...sample.matchAll(/(\w+)="/g)].map(match => match[1]!)]))
  return { metrics: new Set(types.keys()), names: new Set(labels.keys()), labels }
}

t.test('the dashboard queries existing metrics with existing labels', async t => {
  const { names, labels } = await scrape(t)
  t.ok(expressions.length > 20)
  t.ok(alerts.length > 4)
  for (const expression of [...expressions, ...queries, ...alerts]) {
    const metrics = metricsIn(expression)
    t.ok(metrics.length > 0, expression)
    for (const metric of metrics) t.ok(names.has(metric), metric)
    const known = ['job', 'instance', ...metrics.flatMap(metric => labels.get(metric)!)]
    const used = [...expression.matchAll(/by \(([^)]*)\)/g)].flatMap(match => match[1]!.split(', '))
    for (const label of [...used, ...[...expression.matchAll(/(\w+)=~?"/g)].map(match => match[1]!)]) t.ok(known.includes(label), `${label} in ${expression}`)
  }
})

t.test('the refusal reasons in alerts exist', async t => {
  const reasons = alerts.flatMap(expression => [...expression.matchAll(/reason=~"([^"]*)"/g)]).flatMap(match => match[1]!.split('|'))
  t.ok(reasons.length > 0)
  t.same(reasons.filter(reason => !(reason in createRefusals())), [])
})

t.test('the dashboard shows every metric', async t => {
  const { metrics } = await scrape(t)
  const used = expressions.flatMap(metricsIn).map(name => metrics.has(name) ? name : name.replace(/_(bucket|sum|count)$/, ''))
  t.same([...new Set(used)].sort(), [...metrics].sort())
})

t.test('counters are queried as rates, and gauges are not', async t => {
  for (const expression of [...expressions, ...alerts]) {
    for (const metric of metricsIn(expression.replaceAll(variable('prefix'), prefix))) {
      const asRate = new RegExp(`(rate|increase)\\(${metric}[{[]`).test(expression.replaceAll(variable('prefix'), prefix))
      t.equal(asRate, /_(total|bucket|sum|count)$/.test(metric), `${metric} in ${expression}`)
    }
  }
})

t.test('the dashboard is well formed', async t => {
  t.ok(dashboard.schemaVersion >= 36)
  t.match(variables.map(({ name }) => name), ['datasource', 'prefix', 'job', 'instance'])
  t.equal(new Set(panels.map(({ id }) => id)).size, panels.length, 'panels have unique ids')
  for (const { title, type, gridPos: { x, w }, targets } of panels) {
    t.ok(x + w <= 24, `${title} is on the grid`)
    if (type === 'row') continue
    t.equal(new Set(targets!.map(({ refId }) => refId)).size, targets!.length, title)
    for (const { datasource, expr } of targets!) {
      t.same(datasource, { type: 'prometheus', uid: variable('datasource') })
      t.match(expr, '{job=~"$job",instance=~"$instance"', `${expr} selects the chosen instances`)
      t.equal(expr.split('(').length, expr.split(')').length, expr)
    }
  }
  for (const [index, { title, gridPos: one }] of panels.entries()) {
    for (const { gridPos: other } of panels.slice(index + 1)) {
      t.ok(one.x + one.w <= other.x || other.x + other.w <= one.x || one.y + one.h <= other.y || other.y + other.h <= one.y, `${title} overlaps no other panel`)
    }
  }
})
