import { existsSync } from 'node:fs'
import { readFile, readdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import * as errors from '../lib/errors.ts'
import * as entry from '../lib/index.ts'
import { createRefusals } from '../lib/limits/refusals.ts'
import { catalogue } from '../lib/metrics/catalogue.ts'
import { optionsSchema } from '../lib/options.ts'
import { closeBehaviour, closeCodes } from '../lib/protocol/close-codes.ts'
import { checkFrame, checkTopicFrame } from '../lib/protocol/client-frames.ts'
import * as protocol from '../lib/protocol/index.ts'
import { HubRooms } from '../lib/api/rooms.ts'
import { checkSnippets, membersOf, snippetsOf, typesOf } from './readme/snippets.ts'

interface Schema { default?: unknown, minimum?: number, properties?: Record<string, Schema>, patternProperties?: Record<string, Schema>, anyOf?: Schema[] }

const pages = ['README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md', 'example/README.md', 'skills/fastify-rooms/SKILL.md', ...(await readdir('docs', { recursive: true })).filter(name => name.endsWith('.md')).map(name => join('docs', name)).sort()]
const texts = new Map(await Promise.all(pages.map(async page => [page, await readFile(page, 'utf8')] as const)))
const read = (page: string): string => texts.get(page)!

/** The text under a heading, up to the next heading of its level or above. */
function section (page: string, heading: string): string {
  const level = /^#+/.exec(heading)![0].length
  const [, body] = read(page).split(`\n${heading}\n`)
  if (body === undefined) throw new Error(`${page} has no ${heading}`)
  return body.split(new RegExp(`^#{1,${level}} `, 'm'))[0]!
}

/** The rows of all tables in a text, their cells without backticks. */
function rows (text: string): string[][] {
  return text.split('\n')
    .filter(line => line.startsWith('| '))
    .map(line => line.slice(2, -2).split(' | ').map(cell => cell.trim().replaceAll('`', '')))
    .filter((row, index, all) => !row[0]!.startsWith('---') && all[index + 1]?.[0]?.startsWith('---') !== true)
}

/** The names in the headings that begin with this text. */
function headings (page: string, start: string): string[] {
  return read(page).split('\n').filter(line => line.startsWith(start)).map(line => line.slice(start.length).split(/[(`]/)[0]!)
}

/** A default as it stands in a table; a dash means none. */
function value (cell: string): unknown {
  if (cell === '–') return undefined
  return JSON.parse(cell.replace(/(\d)_(?=\d)/g, '$1').replace(/(\w+):/g, '"$1":').replaceAll("'", '"'))
}

/** Options with a value of their own, by dotted name. Groups are walked into; `routes` only down to its two halves. */
function leaves (schema: Schema, prefix = ''): Map<string, Schema> {
  const found = new Map<string, Schema>()
  for (const [name, inner] of Object.entries(schema.properties!)) {
    const path = prefix + name
    const group = inner.anyOf?.find(branch => branch.properties !== undefined) ?? inner
    if (inner.anyOf !== undefined || group.properties === undefined || path.startsWith('routes.')) found.set(path, inner)
    if (group.properties !== undefined && !path.startsWith('routes.')) for (const [key, leaf] of leaves(group, `${path}.`)) found.set(key, leaf)
  }
  return found
}

const options = leaves(optionsSchema as Schema)
const topicSchema = Object.values((optionsSchema as Schema).properties!.topics!.patternProperties!)[0]!

function checkOptions (t: Test, table: string[][], schemas: Map<string, Schema>): void {
  t.same(table.map(([name]) => name).sort(), [...schemas.keys()].sort(), 'schema and docs have the same options')
  for (const [name, cell, takes] of table) {
    const schema = schemas.get(name!)
    t.same(value(cell!), schema?.default, `the default of ${name}`)
    if (schema?.minimum !== undefined) t.equal(takes, `from ${schema.minimum}`, `the bound of ${name}`)
  }
}

t.test('docs/options.md has every option with its default and lower bound, and no other', async t => {
  const text = read('docs/options.md')
  const start = text.indexOf('\n## ')
  checkOptions(t, rows(text.slice(0, start)), options)
  checkOptions(t, rows(section('docs/options.md', '## Topic options')), leaves(topicSchema))

  const { socket, broadcast } = (optionsSchema as Schema).properties!.routes!.properties!
  const named = /both take (.*?),\s+with the meanings/s.exec(section('docs/options.md', '## routes'))![1]!
  for (const { properties } of [socket!, broadcast!]) t.same([...named.matchAll(/`(\w+)`/g)].map(match => match[1]).sort(), Object.keys(properties!).sort(), 'routes have the same hooks')

  const type = await readFile('types/options.ts', 'utf8')
  for (const name of new Set([...options.keys()].map(path => path.split('.')[0]!))) {
    if (!['logLevel', 'logSerializers'].includes(name)) t.match(type, new RegExp(`\\b${name}\\??:`), `${name} is typed`)
  }
})

t.test('every action of authorize is in docs/options.md', async t => {
  const type = /AuthorizeContext<[\s\S]*?\n\n/.exec(await readFile('types/options.ts', 'utf8'))![0]
  const actions = [...type.matchAll(/action: ([^,]*),/g)].flatMap(match => [...match[1]!.matchAll(/'(\w+)'/g)].map(action => action[1]!))
  t.same(rows(section('docs/options.md', '## authorize')).map(([action]) => action).sort(), actions.sort())
})

t.test('the options that README.md names exist, with the defaults it gives', async t => {
  const table = rows(section('README.md', '## Options'))
  t.ok(table.length > 5)
  for (const [names, cell] of table) {
    for (const name of names!.split(', ')) {
      const schema = options.get(name)
      t.ok(schema, name)
      const group = schema?.anyOf?.find(branch => branch.properties !== undefined)
      const expected = group === undefined ? schema?.default : Object.fromEntries(Object.entries(group.properties!).map(([key, inner]) => [key, inner.default]))
      t.same(value(cell!), expected, `the default of ${name}`)
    }
  }
})

t.test('docs/errors.md has every code with its status, and no other', async t => {
  const thrown = Object.entries(errors)
    .map(([name, create]) => {
      const error = new (create as unknown as new (...args: unknown[]) => Error & { code: string, statusCode: number })('a', 'b', 'c')
      t.equal(error.code, name)
      return `${name} ${error.statusCode}`
    })
  t.same(rows(section('docs/errors.md', '## Codes')).map(([code, status]) => `${code} ${status}`).sort(), thrown.sort())
})

t.test('the pages mention only error codes that exist', async t => {
  for (const [page, text] of texts) {
    for (const [code] of text.matchAll(/FST_ROOMS_[A-Z_]*[A-Z]/g)) t.ok(code in errors, `${page}: ${code}`)
  }
})

t.test('docs/errors.md has every close code with its name and behaviour, and no other', async t => {
  const known = Object.entries(closeCodes).map(([code, name]) => [code, name, closeBehaviour(Number(code))])
  t.same(rows(section('docs/errors.md', '## Close codes')).map(([code, name, behaviour]) => [code, name, behaviour]), known)
})

t.test('the behaviour of other close codes in docs/errors.md agrees with closeBehaviour', async t => {
  for (const code of [1002, 1003, 1007, 1008, 1010]) t.equal(closeBehaviour(code), 'stop', String(code))
  for (const code of [1005, 1006, 1012, 1013, 1014, 3000, 3999, 4200, 4299, 4400, 4999]) t.equal(closeBehaviour(code), 'resume', String(code))
})

/** The example frames of a section, as JSON text. */
function frames (heading: string): string[] {
  const [, code] = /```jsonc\n([\s\S]*?)\n```/.exec(section('docs/protocol.md', heading))!
  return code!.split('\n').map(line => line.replace(/ \/\/ .*$/, ''))
}

const serverFrames = frames('## Server → client')
const clientFrames = frames('## Client → server')
const typesIn = (lines: string[]): string[] => [...new Set(lines.map(line => (JSON.parse(line) as { type: string }).type))].sort()

t.test('docs/protocol.md has an example of every frame, and no other', async t => {
  const [server, own] = (await readFile('types/protocol.ts', 'utf8')).split('export type ClientFrame')
  const [client] = own!.split('export interface JoinFrame')
  const declared = (text: string): string[] => [...new Set([...text.matchAll(/\btype: '(\w+)'/g)].map(match => match[1]!))].sort()
  t.same(typesIn(serverFrames), declared(server!))
  t.same(typesIn(clientFrames), declared(client!))
  const encoders = await readFile('lib/protocol/server-frames.ts', 'utf8')
  t.same(typesIn(serverFrames), [...new Set([...encoders.matchAll(/\btype"?: ?['"](\w+)['"]/g)].map(match => match[1]!))].sort(), 'docs/protocol.md has the frames that the server encodes')
})

t.test('example frames of a client in docs/protocol.md are accepted, frames of the server are not', async t => {
  for (const frame of clientFrames) t.notOk('fault' in checkFrame(JSON.parse(frame)), frame)
  for (const type of [...typesIn(serverFrames).filter(type => !typesIn(clientFrames).includes(type)), 'join', 'leave']) {
    t.match(checkFrame({ type, ref: 1, data: 1, to: 'x' }), { fault: /not known/ }, type)
  }
})

t.test('example frames of a client on a connection of several topics are accepted', async t => {
  const examples = frames('## Several topics on one connection')
  t.same(typesIn(examples), ['join', 'leave', 'message', 'ping'])
  for (const frame of examples) t.notOk('fault' in checkTopicFrame(JSON.parse(frame)), frame)
})

t.test('docs/api.md has every member of app.rooms, request.rooms, sessions and test clients, and no other', async t => {
  const page = 'docs/api.md'
  const rooms = headings(page, '### `rooms.').sort()
  t.same(rooms, Object.getOwnPropertyNames(HubRooms.prototype).filter(name => name !== 'constructor').sort())
  t.same(rooms, (await membersOf('types/rooms.ts', 'Rooms')).sort())
  t.same(headings(page, '### `request.rooms.').sort(), await membersOf('types/rooms.ts', 'RequestRooms'))
  t.same(headings(page, '### `session').map(name => name.replace(/^\./, '')).sort(), (await membersOf('types/session.ts', 'Session')).sort())
  t.same(headings(page, '### `client.').sort(), (await membersOf('types/rooms.ts', 'InjectedClient')).sort())
  t.same(rows(section(page, '### `rooms.stats()`')).map(([name]) => name), await membersOf('types/rooms.ts', 'Stats'))
  t.same(rows(section(page, '### Numbers of the broker')).map(([name]) => name), [...await membersOf('types/rooms.ts', 'BrokerNumbers'), ...await membersOf('types/broker.ts', 'BrokerStats')])
  t.same(rows(section(page, '### `rooms.health()`')).map(([name]) => name), await membersOf('types/rooms.ts', 'Health'))
})

t.test('docs/observability.md has every line of the log with its level, and no other', async t => {
  const sources = await Promise.all((await readdir('lib', { recursive: true })).filter(name => name.endsWith('.ts')).map(name => readFile(join('lib', name), 'utf8')))
  const calls = sources.flatMap(source => [...source.matchAll(/\blog(?:ger)?\.(debug|info|warn|error)\((?:\{[^}]*\}, )?(?:'([^']*)')?/g)])
  t.ok(calls.length > 5)
  const logged = calls.map(([call, level, message]) => `${level} ${message ?? `no constant message: ${call}`}`)
  const documented = rows(section('docs/observability.md', '## The log')).map(([level, message]) => `${level} ${message}`)
  const found = logged.map(line => documented.find(entry => entry.endsWith('…') ? line.startsWith(entry.slice(0, -1)) : line === entry) ?? `undocumented: ${line}`)
  t.same(found.sort(), documented.sort())
})

t.test('docs/observability.md has every channel with what it carries, and no other', async t => {
  const page = 'docs/observability.md'
  const about = await membersOf('types/events.ts', 'SessionEvent')
  for (const member of ['rooms', ...about]) t.match(section(page, '## Channels'), `\`${member}\``)
  const documented = rows(section(page, '## Channels')).map(([channel, , carries]) => [channel!, carries!] as const)
  t.same(documented.map(([channel]) => `'${channel}'`), await membersOf('types/events.ts', 'RoomsEvents'))
  const cells = section(page, '## Channels').split('\n').filter(line => line.startsWith('| `fastify-rooms:'))
  for (const [index, [channel]] of documented.entries()) {
    const name = channel.split(':')[1]!
    const type = `${name[0]!.toUpperCase()}${name.slice(1)}Event`
    const own = (await membersOf('types/events.ts', type)).filter(member => member !== 'rooms')
    const named = [...cells[index]!.split(' | ')[2]!.matchAll(/`(\w+)`/g)].map(match => match[1]!).filter(member => member !== 'rooms')
    t.same(named.sort(), own.sort(), channel)
  }
})

t.test('docs/api.md has every reason of a refusal, and no other', async t => {
  const reasons = rows(section('docs/api.md', '### Refusals')).map(([name]) => name)
  t.same(reasons, Object.keys(createRefusals()))
  t.same(reasons, await membersOf('types/rooms.ts', 'Refusals'))
})

t.test('docs/observability.md has every metric with its type and labels, every option of roomsMetrics, and no other', async t => {
  const [options, metrics] = section('docs/observability.md', '## Metrics').split('| Metric |') as [string, string]
  t.same(rows(`| Metric |${metrics}`), Object.entries(catalogue).map(([name, { type, labelNames }], index) => [`fastify_rooms_${name}`, type, labelNames[0] ?? '–', rows(`| Metric |${metrics}`)[index]![3]]))
  t.same(rows(options).map(([name]) => name), await membersOf('types/metrics.ts', 'MetricsOptions'))
})

t.test('options, counters, reasons and metrics in docs/security.md and docs/operations.md exist', async t => {
  const metrics = new Set(read('docs/observability.md').match(/\bfastify_rooms_\w+/g))
  const reasons = Object.keys(createRefusals())
  const stats = await membersOf('types/rooms.ts', 'Stats')
  const topicOptions = leaves(topicSchema)
  for (const page of ['docs/security.md', 'docs/operations.md']) {
    const text = read(page)
    for (const [, name] of text.matchAll(/`((?:limits|slow|drain|heartbeat|expiry|routes|websocket)\.\w+)[`:]/g)) t.ok(options.has(name!) || topicOptions.has(name!), `${page}: ${name}`)
    for (const [, reason] of text.matchAll(/`refusals\.(\w+)`/g)) if (reason !== 'x') t.ok(reasons.includes(reason!), `${page}: refusals.${reason}`)
    for (const [name] of text.matchAll(/\bfastify_rooms_\w+/g)) t.ok(metrics.has(name), `${page}: ${name}`)
  }
  const threats = read('docs/security.md').split('\n### ').slice(1)
  t.ok(threats.length > 15)
  for (const threat of threats) {
    for (const part of ['Stops it', 'Does not stop', 'Shown by']) t.match(threat, `- **${part}**: `, threat.split('\n')[0]!)
    const [shown] = /(?<=\*\*Shown by\*\*: )[^;.]*/.exec(threat)!
    for (const [, name] of shown.matchAll(/`([a-z][A-Za-z]+)`/g)) t.ok(stats.includes(name!) || ['user', 'onError', 'address', 'reason', 'collectDefaultMetrics'].includes(name!), `docs/security.md: ${name} shows ${threat.split('\n')[0]}`)
  }
})

t.test('docs/api.md has every entry of the package, every export of fastify-rooms/protocol, and no other', async t => {
  const { name, exports } = JSON.parse(await readFile('package.json', 'utf8')) as { name: string, exports: Record<string, unknown> }
  const table = section('docs/api.md', '## Entries').split('\n### ')[0]!
  t.same(rows(table).map(([entry]) => entry).sort(), Object.keys(exports).filter(path => path !== './package.json').map(path => name + path.slice(1)).sort())
  t.same(rows(section('docs/api.md', '### `fastify-rooms/protocol`')).map(([name]) => name).sort(), Object.keys(protocol).sort())
})

t.test('docs/api.md has every export, and no other', async t => {
  t.same(rows(section('docs/api.md', '## Exports')).map(([name]) => name).sort(), Object.keys(entry).sort())
  const named = [...section('docs/api.md', '## Types').split('Exported types:')[1]!.split('Each has TSDoc')[0]!.matchAll(/`(\w+)`/g)].map(match => match[1]!)
  const exported = (await Promise.all((await readdir('types')).filter(name => /^\w+\.ts$/.test(name)).map(name => typesOf(join('types', name))))).flat()
  for (const name of named.filter(name => !name.startsWith('Close'))) t.ok(exported.includes(name), name)
})

t.test('the skill for coding assistants has a name, a description and at most 150 lines', async t => {
  const text = read('skills/fastify-rooms/SKILL.md')
  t.ok(text.trimEnd().split('\n').length <= 150)
  const head = /^---\nname: fastify-rooms\ndescription: ([\s\S]+?)\n---\n\n# /.exec(text)?.[1] ?? ''
  // Assistants cut longer ones.
  t.ok(head.length > 100 && head.length <= 1_024, `the description has ${head.length} characters`)
  t.equal(section('skills/fastify-rooms/SKILL.md', '## The five mistakes').match(/^\d\. /gm)!.length, 5)
})

t.test('README.md names every method of app.rooms', async t => {
  const text = rows(section('README.md', '### `app.rooms`')).map(([member]) => member).join(' ')
  t.same([...text.matchAll(/(\w+)\(/g)].map(match => match[1]).sort(), (await membersOf('types/rooms.ts', 'Rooms')).sort())
})

t.test('docs/architecture.md names every file of lib and types, and no missing one', async t => {
  const named = new Set([...read('docs/architecture.md').matchAll(/`((?:lib|types)\/[\w/-]+\.ts)`/g)].map(match => match[1]!))
  const files = (await Promise.all(['lib', 'types'].map(async directory => (await readdir(directory, { recursive: true })).map(name => join(directory, name))))).flat()
  t.same([...named].sort(), files.filter(name => name.endsWith('.ts') && !name.endsWith('.tst.ts')).sort())
})

t.test('README.md lists compatible versions, and justifies every dependency', async t => {
  const { version, engines, peerDependencies, dependencies } = JSON.parse(await readFile('package.json', 'utf8'))
  t.same(rows(section('README.md', '### Compatibility')), [[version.replace(/\d+$/, 'x'), peerDependencies.fastify, engines.node]])
  t.same(rows(section('README.md', '## Dependencies')).map(([name]) => name).sort(), Object.keys(dependencies).sort())
  t.match(read('CHANGELOG.md'), `## [${version}]`)
})

t.test('commands on the pages exist', async t => {
  const { scripts } = JSON.parse(await readFile('package.json', 'utf8'))
  for (const page of ['README.md', 'CONTRIBUTING.md']) {
    for (const [, name] of read(page).matchAll(/npm run ([\w:]+)/g)) t.ok(name! in scripts, `${page}: npm run ${name}`)
    for (const [, name] of read(page).matchAll(/npm (start|test)\b/g)) t.ok(name! in scripts, `${page}: npm ${name}`)
  }
})

/** Pages that are held to the rules of voice: all except the log of changes and, until it is rewritten, docs/architecture.md. */
const prose = [...texts].filter(([page]) => page !== 'CHANGELOG.md')

t.test('issue 9: lines of the pages have at most 160 characters', async t => {
  for (const [page, text] of prose) {
    // Code and comments are replaced by empty lines, so that line numbers stay. A line without a space cannot be broken.
    const lines = text.replace(/<!--[\s\S]*?-->|^ *```[\s\S]*?^ *```$/gm, code => code.replace(/.+/g, '')).split('\n')
    const long = lines.flatMap((line, index) => line.length > 160 && line.trim().includes(' ') ? [`${page}:${index + 1}`] : [])
    t.same(long, [], page)
  }
})

t.test('issue 9: the pages name the actor', async t => {
  for (const [page, text] of prose) t.same(text.match(/\b(?:somebody|nobody|everybody|whoever|whosever|anyone is allowed)\b/gi), null, page)
})

t.test('issue 9: logLevel concerns the lines of routes alone, as docs/observability.md says', async t => {
  const messages: string[] = []
  const app = Fastify({ logger: { stream: { write: (line: string) => { messages.push((JSON.parse(line) as { msg: string }).msg) } } } })
  t.teardown(() => app.close())
  await app.register(entry.fastifyRooms, { prefix: '/rooms', logLevel: 'warn' })
  const client = await app.rooms.inject('/rooms/news')
  await client.next('hello')
  await client.close()
  for (const line of ['member joined', 'member left']) t.ok(messages.includes(line), line)
  t.notOk(messages.includes('incoming request'))
})

t.test('links have a target', async t => {
  // Anchors, formed as GitHub does.
  const anchors = (page: string): string[] => [...read(page).matchAll(/^#+ (.*)$/gm)].map(([, title]) => title!.toLowerCase().replace(/[^\w\- ]/g, '').replaceAll(' ', '-'))
  let links = 0
  for (const [page, text] of texts) {
    for (const [, link] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(link!)) continue
      links++
      const [path, anchor] = link!.split('#') as [string, string?]
      const target = path === '' ? page : join(dirname(page), path)
      t.ok(existsSync(target), `${page}: ${link}`)
      if (anchor !== undefined) t.ok(anchors(target).includes(anchor), `${page}: ${link}`)
    }
  }
  t.ok(links > 20)
})

t.test('snippets compile, and run if they are marked', async t => {
  // test/recipes.test.ts tests the snippets of the recipes.
  const snippets = [...texts].filter(([page]) => !page.startsWith('docs/recipes/')).flatMap(([page, text]) => snippetsOf(page, text))
  t.ok(snippets.length > 10)
  await checkSnippets(t, snippets, [{
    path: 'frames.ts',
    code: `import type { ClientFrame, ServerFrame } from 'fastify-rooms'
export const server: ServerFrame[] = [${serverFrames.join(',\n')}]
export const client: ClientFrame[] = [${clientFrames.join(',\n')}]`
  }])
})
