import { readFile, readdir } from 'node:fs/promises'
import { join, posix } from 'node:path'
import t from 'tap'
import ts from 'typescript'
import { entries as exported, root } from './tarball.ts'

/** The sources of the exports of the package. */
const entries = exported.map(({ code }) => code.replace(/^\.\/dist\/(.*)\.js$/, '$1.ts'))

const compilerOptions = { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2023, verbatimModuleSyntax: true, removeComments: true }

/** The remaining code of a file at run time. */
async function compiled (file: string): Promise<string> {
  return ts.transpileModule(await readFile(join(root, file), 'utf8'), { compilerOptions }).outputText
}

// Coverage counts only loaded files, so that a file that nothing loads would go unnoticed.
t.test('the exports load every file of lib, so that each one counts in the coverage', async t => {
  const loaded = new Set<string>()
  const load = async (file: string): Promise<void> => {
    if (loaded.has(file)) return
    loaded.add(file)
    for (const { fileName } of ts.preProcessFile(await compiled(file)).importedFiles) {
      if (fileName.startsWith('.')) await load(posix.join(posix.dirname(file), fileName))
    }
  }
  for (const entry of entries) await load(entry)
  t.ok(loaded.size > entries.length)

  const files = (await readdir(join(root, 'lib'), { recursive: true })).filter(name => name.endsWith('.ts')).map(name => posix.join('lib', name))
  const unused: string[] = []
  for (const file of files) {
    // A file with only types has nothing to cover.
    if (!loaded.has(file) && !/^(export \{\};)?\s*$/.test(await compiled(file))) unused.push(file)
  }
  t.same(unused, [])
})
