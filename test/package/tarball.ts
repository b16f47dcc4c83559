/**
 * The package as npm would publish and install it, without a registry: packed and unpacked in an empty folder, beside
 * copies of its declared dependencies only, so that an undeclared import fails as it would for a user.
 */
import { execFile, type ExecFileException } from 'node:child_process'
import { existsSync } from 'node:fs'
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import { emptyFolder } from '../helpers/folder.ts'

export const root = fileURLToPath(new URL('../..', import.meta.url))

export interface Manifest {
  name: string
  version: string
  main: string
  types: string
  exports: Record<string, string | { types: string, default: string }>
  typesVersions: { '*': Record<string, string[]> }
  engines: Record<string, string>
  dependencies: Record<string, string>
  peerDependencies: Record<string, string>
  peerDependenciesMeta?: Record<string, { optional?: boolean }>
  devDependencies: Record<string, string>
}

/** An entry of package-lock.json. */
export interface Locked {
  version: string
  resolved?: string
  link?: boolean
  dependencies?: Record<string, string>
  peerDependencies?: Record<string, string>
  peerDependenciesMeta?: Record<string, { optional?: boolean }>
}

export const readJson = async <T>(file: string): Promise<T> => JSON.parse(await readFile(file, 'utf8')) as T

export const manifest = await readJson<Manifest>(join(root, 'package.json'))
/** The entries of the package as a program imports them, with the path of their code. */
export const entries = Object.entries(manifest.exports).flatMap(([path, target]) => typeof target === 'string' ? [] : [{ name: manifest.name + path.slice(1), code: target.default }])

export const lock = await readJson<{ packages: Record<string, Locked> }>(join(root, 'package-lock.json'))

/** The peers that entries other than the main one need, and the packages of their types. */
export const optionalPeers = Object.entries(manifest.peerDependenciesMeta ?? {}).flatMap(([name, { optional }]) => optional === true ? [name, `@types/${name}`] : []).filter(name => `node_modules/${name}` in lock.packages)

/** The output of a process. `code` is null if a signal ended it. */
export interface Outcome { code: number | null, stdout: string, stderr: string }

/** The environment without the additions of the test runner for its children (loaders, coverage). */
function environment (): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(NODE_OPTIONS|NODE_V8_COVERAGE|_?TAP.*|npm_.*)$/.test(name) || /^npm_config_(cache|userconfig)$/.test(name)))
}

export function run (command: string, args: string[], cwd: string): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    execFile(command, args, { cwd, env: environment(), maxBuffer: 64 * 1_048_576 }, (error: ExecFileException | null, stdout, stderr) => {
      if (typeof error?.code === 'string') reject(error)
      else resolve({ code: error === null ? 0 : error.code ?? null, stdout, stderr })
    })
  })
}

/** Runs a tool of this repository with Node.js, by the path of its script under node_modules. */
export const tool = (script: string, args: string[], cwd: string): Promise<Outcome> => run(process.execPath, [join(root, 'node_modules', script), ...args], cwd)

/** Packs the last build. Builds only if there is none, because other tests read `dist` meanwhile. */
export async function pack (t: Test): Promise<{ file: string, paths: string[] }> {
  if (!existsSync(join(root, 'dist/lib/index.js'))) {
    const { code, stdout, stderr } = await run('npm', ['run', 'build'], root)
    if (code !== 0) throw new Error(`the build failed: ${stdout}${stderr}`)
  }
  const folder = await emptyFolder(t)
  const { code, stdout, stderr } = await run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], root)
  if (code !== 0) throw new Error(`npm pack failed: ${stderr}`)
  const [{ filename, files }] = JSON.parse(stdout) as [{ filename: string, files: { path: string }[] }]
  return { file: join(folder, filename), paths: files.map(({ path }) => path) }
}

/** The path of a package as another one resolves it, by the rules of Node.js. */
function locate (from: string, name: string): string | undefined {
  for (let folder = from; ; folder = folder.slice(0, Math.max(folder.lastIndexOf('/node_modules/'), 0))) {
    const path = `${folder === '' ? '' : `${folder}/`}node_modules/${name}`
    if (path in lock.packages) return path
    if (folder === '') return undefined
  }
}

/** The paths of packages and of all their dependencies, as in the lock file. */
function closure (names: string[]): Set<string> {
  const paths = new Set<string>()
  const add = (from: string, name: string, optional = false): void => {
    const path = locate(from, name)
    if (path === undefined && !optional) throw new Error(`${name} is not in the lock file`)
    if (path === undefined || paths.has(path)) return
    paths.add(path)
    const { dependencies = {}, peerDependencies = {}, peerDependenciesMeta = {} } = lock.packages[path]!
    for (const needed of Object.keys(dependencies)) add(path, needed)
    // Optional peers are not installed by default.
    for (const peer of Object.keys(peerDependencies)) if (peerDependenciesMeta[peer]?.optional !== true) add(path, peer, true)
  }
  for (const name of names) add('', name)
  return paths
}

/** An empty folder with the package installed, and `extra` as the user's own dependencies. */
export async function install (t: Test, extra: string[] = []): Promise<string> {
  const [{ file }, folder] = await Promise.all([pack(t), emptyFolder(t)])
  const target = join(folder, 'node_modules/fastify-rooms')
  await mkdir(target, { recursive: true })
  const { code, stderr } = await run('tar', ['-xzf', file, '--strip-components=1', '-C', target], folder)
  if (code !== 0) throw new Error(`tar failed: ${stderr}`)

  const { dependencies, peerDependencies } = await readJson<Manifest>(join(target, 'package.json'))
  const peers = Object.keys(peerDependencies).filter(name => !optionalPeers.includes(name))
  const wanted = closure([...Object.keys(dependencies), ...peers, ...extra])
  for (const path of wanted) {
    // A nested package is copied for itself if needed, not with its parent.
    await cp(join(root, path), join(folder, path), { recursive: true, filter: source => source === join(root, path) || !source.endsWith('/node_modules') })
  }
  return folder
}

/** Writes files into a folder, and creates their folders. */
export async function write (folder: string, files: Record<string, string | object>): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true })
    await writeFile(join(folder, name), typeof content === 'string' ? content : JSON.stringify(content, null, 2))
  }
}

/** The names that each entry exports in an installed package, by the name of the entry. The same module is loaded by `require` and `import`, or this fails. */
export async function exportedNames (folder: string): Promise<Record<string, string[]>> {
  await write(folder, {
    'names.cjs': `
async function main () {
  const names = {}
  for (const entry of ${JSON.stringify(entries.map(({ name }) => name))}) {
    const required = require(entry)
    const imported = await import(entry)
    names[entry] = Object.keys(imported)
    for (const name of names[entry]) if (name !== 'module.exports' && required[name] !== imported[name]) throw new Error(entry + ' has two of ' + name)
  }
  console.log(JSON.stringify(names))
}
main()
`
  })
  const { code, stdout, stderr } = await run(process.execPath, ['names.cjs'], folder)
  if (code !== 0 || stderr !== '') throw new Error(`the entries cannot be loaded: ${stderr}`)
  return JSON.parse(stdout) as Record<string, string[]>
}
