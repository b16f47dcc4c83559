import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { checkSnippets, snippetsOf } from './readme/snippets.ts'

const folder = 'docs/recipes'
const names = (await readdir(folder)).filter(name => name !== 'README.md').sort()
const texts = await Promise.all(names.map(name => readFile(join(folder, name), 'utf8')))
const recipes = names.map((name, index) => ({ name, text: texts[index]!, snippets: snippetsOf(join(folder, name), texts[index]!) }))

t.test('issue 8: each recipe has at most 80 lines, a snippet that runs, and links from the index and the README', async t => {
  const index = await readFile(join(folder, 'README.md'), 'utf8')
  const readme = await readFile('README.md', 'utf8')
  t.ok(recipes.length > 5)
  for (const { name, text, snippets } of recipes) {
    const lines = text.trimEnd().split('\n')
    t.ok(lines.length <= 80, `${name}: ${lines.length} lines`)
    t.ok(snippets.some(({ runs }) => runs), `${name}: a snippet runs`)
    t.match(index, `](${name})`, name)
    t.match(readme, `](${join(folder, name)})`, name)
  }
})

t.test('issue 8: the snippets of the recipes compile, and run if they are marked', async t => {
  await checkSnippets(t, recipes.flatMap(({ snippets }) => snippets))
})

t.test('the functions for Vue and Svelte have at most 15 lines', async t => {
  for (const name of ['vue.md', 'svelte.md']) {
    const [code] = /^export function [\s\S]*?^}$/m.exec(recipes.find(recipe => recipe.name === name)!.text)!
    t.ok(code.split('\n').length <= 15, `${name}: ${code.split('\n').length} lines`)
  }
})
