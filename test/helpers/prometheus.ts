/** The contents of a scrape. Samples by name and labels, as written. */
export interface Scrape { types: Map<string, string>, help: Map<string, string>, samples: Map<string, number> }

const line = /^(?:# (HELP|TYPE) ([a-zA-Z_:][\w:]*) (.+)|([a-zA-Z_:][\w:]*(?:\{[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\n"])*"(?:,[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\n"])*")*\})?) (-?[\d.e+-]+|[+-]Inf|NaN))$/

/** Parses Prometheus's text format 0.0.4 strictly: throws on an unknown line, a duplicate, or a sample without TYPE. */
export function parseMetrics (text: string): Scrape {
  const scrape: Scrape = { types: new Map(), help: new Map(), samples: new Map() }
  const set = <T>(map: Map<string, T>, name: string, value: T): void => {
    if (map.has(name)) throw new Error(`${name} comes twice`)
    map.set(name, value)
  }
  for (const row of text.split('\n').filter(row => row !== '')) {
    const match = line.exec(row)
    if (match === null) throw new Error(`no line of the format: ${row}`)
    const [, comment, name, content, sample, value] = match
    if (comment !== undefined) set(comment === 'TYPE' ? scrape.types : scrape.help, name!, content!)
    else {
      const metric = sample!.replace(/\{.*/, '')
      if (![metric, metric.replace(/_(bucket|sum|count|total)$/, '')].some(name => scrape.types.has(name))) throw new Error(`${sample} has no TYPE`)
      set(scrape.samples, sample!, Number(value!.replace('Inf', 'Infinity')))
    }
  }
  return scrape
}
