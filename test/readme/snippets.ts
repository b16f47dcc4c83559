import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import type { Test } from 'tap'
import ts from 'typescript'

/** A fenced block of a page. Comments before it may tell how it is tested (CONTRIBUTING.md). */
export interface Snippet {
  /** Page and line, for messages. */
  where: string
  language: 'ts' | 'tsx' | 'js' | 'cjs'
  path: string
  /** The code with its prelude, and for a run with the appended part. */
  code: string
  runs: boolean
}

const block = /((?:<!--(?:(?!-->)[\s\S])*-->\n)*)```(tsx?|js|cjs)\n([\s\S]*?)\n```/g

/** The snippets of one page; each page has a directory of its own. */
export function snippetsOf (page: string, text: string): Snippet[] {
  return [...text.matchAll(block)].map(match => {
    const [, comments, language, body] = match as unknown as [string, string, Snippet['language'], string]
    const prelude = /<!-- prelude: ([\s\S]*?) -->/.exec(comments)?.[1]
    const run = /<!-- run(?:: ([\s\S]*?))? -->/.exec(comments)
    const line = text.slice(0, match.index).split('\n').length
    const name = /^\/\/ ([\w-]+\.tsx?)\n/.exec(body)?.[1] ?? `line-${line}.${language}`
    // Pages show the usual port; tests take a free one.
    const code = [prelude, body, run?.[1]].filter(part => part !== undefined).join('\n').replaceAll('port: 3000', 'port: 0')
    return { where: `${page}:${line}`, language, path: join(page.replace(/\W/g, '-'), name), code, runs: run !== null }
  })
}

/** Source files are parsed once for all programs. */
function createHost (options: ts.CompilerOptions): ts.CompilerHost {
  const host = ts.createCompilerHost(options)
  const parsed = new Map<string, ts.SourceFile | undefined>()
  const { getSourceFile } = host
  host.getSourceFile = (file, ...rest) => {
    if (!parsed.has(file)) parsed.set(file, getSourceFile(file, ...rest))
    return parsed.get(file)
  }
  return host
}

/** The last build, or a new one if there is none, because other tests read `dist` meanwhile. */
function build (): void {
  if (existsSync('dist/lib/index.js')) return
  const { config } = ts.readConfigFile('tsconfig.build.json', ts.sys.readFile)
  const { options, fileNames } = ts.parseJsonConfigFileContent(config, ts.sys, process.cwd(), { noCheck: true })
  ts.createProgram(fileNames, options).emit()
}

/** A project in `root`, with the last build of this package in its node_modules. */
async function createProject (root: string): Promise<void> {
  const target = join(root, 'node_modules/fastify-rooms')
  await mkdir(target, { recursive: true })
  await writeFile(join(root, 'package.json'), '{ "name": "snippets", "type": "module" }')
  await writeFile(join(target, 'package.json'), await readFile('package.json'))
  // Types of a package that a recipe is about, and that is not installed.
  await mkdir(join(root, 'node_modules/ai'))
  await writeFile(join(root, 'node_modules/ai/package.json'), '{ "name": "ai", "types": "./index.d.ts" }')
  await writeFile(join(root, 'node_modules/ai/index.d.ts'), await readFile('test/readme/ai.d.ts'))
  build()
  await cp('dist', join(target, 'dist'), { recursive: true })
}

async function writeSnippets (root: string, snippets: Pick<Snippet, 'path' | 'code'>[]): Promise<void> {
  for (const { path, code } of snippets) {
    await mkdir(dirname(join(root, path)), { recursive: true })
    await writeFile(join(root, path), code + '\n')
  }
}

/** The errors of the compiler in the snippets. */
function typecheck (root: string, snippets: Pick<Snippet, 'path' | 'code'>[]): string[] {
  const options: ts.CompilerOptions = {
    target: ts.ScriptTarget.ES2023,
    lib: ['lib.es2023.d.ts'],
    module: ts.ModuleKind.NodeNext,
    moduleDetection: ts.ModuleDetectionKind.Force,
    types: ['node'],
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    allowImportingTsExtensions: true
  }
  const host = createHost(options)
  const pageOptions: ts.CompilerOptions = { ...options, lib: ['lib.es2023.d.ts', 'lib.dom.d.ts', 'lib.dom.iterable.d.ts'], jsx: ts.JsxEmit.ReactJSX }
  const check = (some: Pick<Snippet, 'path' | 'code'>[]): readonly ts.Diagnostic[] => {
    const isPage = some.some(({ path }) => path.endsWith('.tsx'))
    const program = ts.createProgram(some.map(({ path }) => join(root, path)), isPage ? pageOptions : options, host)
    return [...program.getOptionsDiagnostics(), ...some.flatMap(({ path }) => ts.getPreEmitDiagnostics(program, program.getSourceFile(join(root, path))))]
  }
  // Topics are registered for a whole program, so each page is a program.
  const programs = new Map<string, Pick<Snippet, 'path' | 'code'>[]>()
  for (const snippet of snippets) {
    const program = snippet.code.includes('declare module') || /from '\.\//.test(snippet.code) || snippet.path.endsWith('.tsx') ? dirname(snippet.path) : ''
    programs.set(program, [...programs.get(program) ?? [], snippet])
  }
  return [...programs.values()].flatMap(check).map(({ file, start, messageText }) => {
    const line = file === undefined ? '' : `${file.fileName.slice(root.length + 1)}:${file.getLineAndCharacterOfPosition(start ?? 0).line + 1} `
    return line + ts.flattenDiagnosticMessageText(messageText, '\n')
  })
}

/** The script of a snippet for node. */
async function runnable (root: string, { path, language, code }: Snippet): Promise<string> {
  const file = join(root, path)
  if (language !== 'ts') return file
  const { outputText } = ts.transpileModule(code, { compilerOptions: { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext, rewriteRelativeImportExtensions: true } })
  const compiled = file.replace(/\.ts$/, '.js')
  await writeFile(compiled, outputText)
  return compiled
}

/** Runs node. Resolves with its output if it failed, else with ''. */
async function node (...args: string[]): Promise<string> {
  // Without the loaders of tap, because snippets do not count as coverage.
  const { NODE_OPTIONS, ...env } = process.env
  const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'pipe', 'pipe'], timeout: 60_000 })
  let output = ''
  child.stdout.on('data', chunk => { output += chunk })
  child.stderr.on('data', chunk => { output += chunk })
  const [code, signal] = await new Promise<[number | null, string | null]>(resolve => { child.on('close', (...result) => { resolve(result) }) })
  return code === 0 ? '' : `exit ${code ?? signal}\n${output}`
}

/** Compiles snippets and `more`, which is not run, and runs the marked snippets. */
export async function checkSnippets (t: Test, snippets: Snippet[], more: Pick<Snippet, 'path' | 'code'>[] = []): Promise<void> {
  // Inside the repository, so that packages resolve; a folder for each run, because two runs share t.testdir().
  await mkdir('.tap', { recursive: true })
  const root = await mkdtemp(resolve('.tap/snippets-'))
  t.teardown(() => rm(root, { recursive: true }))
  await createProject(root)
  await writeSnippets(root, [...snippets, ...more])

  t.same(typecheck(root, [...snippets.filter(({ language }) => language === 'ts' || language === 'tsx'), ...more]), [], 'the compiler reports nothing')

  // All files are written before one runs, because a snippet may import another of its page.
  const files = new Map(await Promise.all(snippets.map(async snippet => [snippet, await runnable(root, snippet)] as const)))
  const work = snippets.filter(({ language, runs }) => runs || language === 'js' || language === 'cjs')
  const worker = async (): Promise<void> => {
    for (let snippet = work.shift(); snippet !== undefined; snippet = work.shift()) {
      const file = files.get(snippet)!
      t.equal(await node(...snippet.runs ? [file] : ['--check', file]), '', snippet.where)
    }
  }
  await Promise.all([worker(), worker()])
}

/** The names of an interface's members, as written. */
export async function membersOf (file: string, name: string): Promise<string[]> {
  const source = ts.createSourceFile(file, await readFile(file, 'utf8'), ts.ScriptTarget.Latest)
  const found = source.statements.find((statement): statement is ts.InterfaceDeclaration => ts.isInterfaceDeclaration(statement) && statement.name.text === name)
  if (found === undefined) throw new Error(`${file} has no interface ${name}`)
  return [...new Set(found.members.map(member => member.name!.getText(source)))]
}

/** The names of a module's exported types. */
export async function typesOf (file: string): Promise<string[]> {
  const source = ts.createSourceFile(file, await readFile(file, 'utf8'), ts.ScriptTarget.Latest)
  return source.statements
    .filter(statement => ts.isInterfaceDeclaration(statement) || ts.isTypeAliasDeclaration(statement))
    .filter(statement => statement.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword) === true)
    .map(statement => statement.name.text)
}
