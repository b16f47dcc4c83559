import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'
import t from 'tap'

const root = `${import.meta.dirname}/../..`

t.test('the core of the client is small, and needs nothing of Node.js', async t => {
  const { outputFiles } = await build({
    stdin: { contents: "export { createClient } from './lib/client/index.ts'", resolveDir: root, loader: 'ts' },
    bundle: true,
    minify: true,
    format: 'esm',
    platform: 'browser',
    splitting: true,
    outdir: 'out',
    write: false
  })
  const sizes = outputFiles.map(({ path, contents }) => [path.replace(/^.*\//, ''), contents.length, gzipSync(contents, { level: 9 }).length] as const)
  for (const [name, minified, zipped] of sizes) t.comment(`${name}: ${minified} bytes minified, ${zipped} bytes with gzip -9`)
  const core = outputFiles.find(({ path }) => path.endsWith('stdin.js'))!
  t.notMatch(core.text, /\bfrom\s*"/, 'the modules that are loaded later share no file with it')
  t.ok(gzipSync(core.contents, { level: 9 }).length <= 3_000)
})
