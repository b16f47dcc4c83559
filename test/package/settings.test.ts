import { join } from 'node:path'
import t from 'tap'
import { app, eager, everything, faults, lazy, topics, wrong, wrongs } from './programs.ts'
import { exportedNames, install, optionalPeers, run, tool, write } from './tarball.ts'

const folder = await install(t, optionalPeers)

interface Settings { type: string, name: string, options: object, files: Record<string, string>, said: string[], main: string }

const right = { files: { 'topics.ts': topics, 'app.ts': app, 'wrong.ts': wrong, 'everything.ts': everything(await exportedNames(folder)) }, said: wrongs, main: 'app.js' }

/** Settings in docs/commonjs.md beyond those of install.test.ts. */
const settings: Settings[] = [
  { type: 'commonjs', name: 'commonjs and bundler', options: { module: 'commonjs', moduleResolution: 'bundler' }, ...right },
  { type: 'commonjs', name: 'commonjs and node10', options: { module: 'commonjs', moduleResolution: 'node10', ignoreDeprecations: '6.0' }, ...right },
  { type: 'module', name: 'preserve and bundler', options: { module: 'preserve', moduleResolution: 'bundler' }, ...right },
  { type: 'commonjs', name: 'node18', options: { module: 'node18' }, files: { 'eager.ts': eager, 'lazy.ts': lazy }, said: ['eager.ts:2 TS1479'], main: 'lazy.js' }
]

for (const { type, name, options, files, said, main } of settings) {
  t.test(`issue 8: TypeScript: a project of type ${type} with ${name} compiles and runs as docs/commonjs.md says`, async t => {
    const project = name.replaceAll(' ', '-')
    await write(folder, {
      [`${project}/package.json`]: { type },
      [`${project}/tsconfig.json`]: {
        compilerOptions: { ...options, target: 'es2023', lib: ['es2023'], rootDir: '.', outDir: 'out', strict: true, skipLibCheck: true, types: ['node'] },
        include: ['*.ts']
      },
      ...Object.fromEntries(Object.entries(files).map(([file, source]) => [`${project}/${file}`, source]))
    })
    const { stdout } = await tool('typescript/bin/tsc', ['--pretty', 'false', '-p', project], folder)
    t.same(faults(stdout), said)

    const { code, stdout: printed, stderr } = await run(process.execPath, [join(project, 'out', main)], folder)
    t.equal(stderr, '')
    t.equal(code, 0)
    t.match(JSON.parse(printed), { data: { text: 'one' } })
  })
}
