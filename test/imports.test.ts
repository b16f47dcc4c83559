import { readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import t from 'tap'
import { execFileSync } from 'node:child_process'

const root = join(import.meta.dirname, '..')
const files = execFileSync('find', ['lib', 'types', '-name', '*.ts'], { cwd: root, encoding: 'utf8' }).trim().split('\n').filter(file => !file.endsWith('.tst.ts'))

/** The files that each file imports, types included. */
const importsOf = new Map(files.map(file => {
  const source = readFileSync(join(root, file), 'utf8')
  const specifiers = [...source.matchAll(/^(?:import|export)\b[^'"]*?from '(\.[^']+)'/gm)].map(match => match[1]!)
  return [file, specifiers.map(specifier => relative(root, join(root, dirname(file), specifier)))] as const
}))

/** A path of imports from a file back to itself, or `undefined`. */
function cycleFrom (start: string): string[] | undefined {
  const seen = new Set<string>()
  const visit = (file: string, path: string[]): string[] | undefined => {
    for (const next of importsOf.get(file) ?? []) {
      if (next === start) return [...path, next]
      if (seen.has(next)) continue
      seen.add(next)
      const found = visit(next, [...path, next])
      if (found !== undefined) return found
    }
    return undefined
  }
  return visit(start, [start])
}

t.test('no two files of lib import each other, types included', async t => {
  t.ok(files.length > 100)
  for (const file of files.filter(file => file.startsWith('lib/'))) t.same(cycleFrom(file), undefined, file)
})

t.test('hub, room and session are imported only by the files that assemble them', async t => {
  const assemblers: Record<string, string[]> = {
    'lib/hub/hub.ts': ['lib/plugin.ts'],
    'lib/room/room.ts': ['lib/hub/hub.ts'],
    'lib/session/session.ts': ['lib/hub/hub.ts']
  }
  for (const [file, allowed] of Object.entries(assemblers)) {
    t.same([...importsOf].filter(([, imports]) => imports.includes(file)).map(([importer]) => importer), allowed, file)
  }
})

t.test('each import names an existing file', async t => {
  for (const [file, imports] of importsOf) t.same(imports.filter(name => !importsOf.has(name)), [], file)
})
