// Module hooks for node:module: transforms TypeScript by esbuild, one statement a line and with a source map, so that coverage
// is exact. Keeps each result on disk under the hash of its source: a run of some two hundred processes transforms each file once.
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const cache = fileURLToPath(new URL('../../.tap/typescript/', import.meta.url))
const self = readFileSync(fileURLToPath(import.meta.url))
mkdirSync(cache, { recursive: true })

export async function load (url, context, nextLoad) {
  if (!/^file:.*\.ts(\?|$)/.test(url)) return nextLoad(url, context)
  const path = fileURLToPath(url)
  const text = readFileSync(path)
  const hash = createHash('sha256').update(self).update(path).update('\0').update(text).digest('hex')
  const file = `${cache}${hash.slice(0, 32)}.js`
  let source
  try {
    source = readFileSync(file, 'utf8')
  } catch {
    source = await transform(text, path)
    const unfinished = `${file}.${process.pid}`
    writeFileSync(unfinished, source)
    renameSync(unfinished, file)
  }
  return { format: 'module', source, shortCircuit: true }
}

async function transform (text, path) {
  const { transformSync } = await import('esbuild') // loaded only if something is not on disk yet
  return transformSync(text, { loader: 'ts', target: 'node20', sourcefile: path, sourcemap: 'inline', sourcesContent: false }).code
}
