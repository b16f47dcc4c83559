import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join as joinPath } from 'node:path'
import t from 'tap'
import { encodeControl, encodePublication } from '../../lib/nats/envelope.ts'
import { Subjects } from '../../lib/nats/subjects.ts'
import { until } from '../helpers/app.ts'
import { connectNats, startNats, withoutNats } from '../helpers/nats-server.ts'
import { publicationOf, startNode, type Node } from './nodes.ts'

const subjects = new Subjects('rooms')

t.test('nodes over one server', { skip: withoutNats }, async t => {
  const { host } = await startNats(t)
  // Two nodes share a connection, which the host may use, too.
  const connection = await connectNats(t, host)
  const [a, b, c] = await Promise.all([
    startNode(t, 'a', { connection }), startNode(t, 'b', { connection }), startNode(t, 'c', { connection: await connectNats(t, host) })
  ]) as [Node, Node, Node]
  const clear = (): void => { for (const { entries, controls } of [a, b, c]) entries.length = controls.length = 0 }

  t.test('say what they can, and start once', async t => {
    t.same(a.broker.capabilities, { order: 'node', history: false, presence: false, once: 'node' })
    t.same(a.states, ['up'])
    t.match(a.broker.stats!(), { queued: 0, topics: 0, reconnects: 0, unreadable: 0 })
    t.ok(a.broker.stats!().lag > 0)
    await t.rejects(a.broker.start('a', {} as never), { code: 'FST_ROOMS_INVALID_OPTION' })
  })

  t.test('members of a node get a message inside the call, those of other nodes get it once, unchanged', async t => {
    t.same(await Promise.all([a, c].map(({ broker }) => broker.attach(['chat:1', 'chat.*.>']))), [[null, null], [null, null]])
    const full = { ...publicationOf('a', 'chat:1', { text: 'ä' }), except: 's1', key: '' }
    const ending = { ...publicationOf('a', 'chat.*.>'), tail: Buffer.from('"reason":"stopped"}'), payloadLength: 0, end: 'stopped' as const }
    const outcomes = a.broker.publish([full, ending])
    t.equal(a.entries[0]!.publication, full, 'the entry comes before the outcome')
    t.equal(a.broker.stats!().queued, 2)
    t.same(await outcomes, [{ state: 'ok' }, { state: 'ok' }])
    await until(() => c.entries.length === 2)
    t.same(c.entries, [{ topic: 'chat:1', publication: full }, { topic: 'chat.*.>', publication: ending }])
    await c.publish('chat:1', 'back')
    await until(() => a.entries.length === 3)
    t.same([a.entries.length, b.entries.length, c.entries.length, a.broker.stats!().queued], [3, 0, 3, 0], 'the copy that comes back is dropped')
    clear()
  })

  t.test('each node sees the messages of another one in the order of its calls', async t => {
    await b.broker.attach(['chat:1'])
    for (let i = 0; i < 100; i++) for (const node of [a, b, c]) node.publish('chat:1', `${node.name}${i}`).catch(t.fail)
    await until(() => [a, b, c].every(({ entries }) => entries.length === 300))
    const expected = (name: string): string[] => Array.from({ length: 100 }, (_, i) => name + i)
    for (const node of [a, b, c]) for (const { name } of [a, b, c]) t.same(node.payloads().filter(text => String(text).startsWith(name)), expected(name))
    clear()
  })

  t.test('a topic that was detached delivers nothing, keeps its subscription for a while, and can be attached again', async t => {
    const d = await startNode(t, 'd', { connection }, { linger: 60 })
    await d.broker.attach(['x', 'y'])
    await Promise.all([d.broker.detach(['x', 'never']), d.broker.detach(['y']), d.broker.attach(['y'])])
    await a.publish('x', 1)
    await a.publish('y', 2)
    await d.publish('x', 3)
    await until(() => d.entries.length === 1)
    t.same(d.payloads(), [2])
    t.equal(d.broker.stats!().topics, 2)
    await until(() => d.broker.stats!().topics === 1)
    await d.broker.attach(['x'])
    await a.publish('x', 4)
    await until(() => d.entries.length === 2)
  })

  t.test('control messages reach one node, all others, or those that hold a user', async t => {
    t.equal(await a.broker.control('node:c', Buffer.from('to c')), 'sent')
    t.equal(await a.broker.control('node:nowhere', Buffer.from('x')), 'gone')
    t.equal(await a.broker.control('node:a', Buffer.from('x')), 'gone', 'the own node is none')
    t.equal(await a.broker.control('*', Buffer.from('to all')), 'sent')
    t.equal(await a.broker.control('user:ann', Buffer.from('x')), 'gone')
    await until(() => b.controls.length === 1 && c.controls.length === 2)
    t.same([a.controls, b.controls, c.controls], [[], ['a to all'], ['a to c', 'a to all']])
    clear()

    b.broker.hold!(['ann', 'ann'], ['never'])
    t.equal(await a.broker.control('user:ann', Buffer.from('1')), 'sent')
    t.equal(await b.broker.control('user:ann', Buffer.from('x')), 'gone', 'no other node holds the user')
    c.broker.hold!(['ann'], [])
    await until(async () => await c.broker.control('user:ann', Buffer.from('2')) === 'sent')
    await until(async () => await b.broker.control('user:ann', Buffer.from('3')) === 'sent')
    t.same(b.controls.filter(text => text.startsWith('a')), ['a 1'])
    t.ok(c.controls.includes('b 3'))
    c.broker.hold!([], ['ann'])
    await until(async () => await b.broker.control('user:ann', Buffer.from('4')) === 'gone')
    b.broker.hold!([], ['ann'])
    t.equal(await a.broker.control('user:ann', Buffer.from('5')), 'gone')
    t.notOk([...b.controls, ...c.controls].includes('a 5'))
    clear()
  })

  t.test('the nodes that are said to hold a user are bounded in number', async t => {
    b.broker.hold!(['eve'], [])
    await until(async () => await b.broker.control('user:eve', Buffer.from('x')) === 'gone')
    const say = (kind: 3 | 4, count: number): void => { for (let n = 0; n < count; n++) connection.publish(kind === 3 ? subjects.node('b') : subjects.user('eve'), encodeControl(kind, `forged${n}`, Buffer.from(kind === 3 ? 'eve' : ''))) }
    say(3, 1_001)
    await until(async () => await b.broker.control('user:eve', Buffer.from('x')) === 'sent')
    say(4, 1_000)
    await until(async () => await b.broker.control('user:eve', Buffer.from('x')) === 'gone')
    b.broker.hold!([], ['eve'])
    clear()
  })

  t.test('bytes that cannot be read are ignored, counted, and told once', async t => {
    const good = encodePublication(publicationOf('x', 'chat:1', 1))
    const other = Buffer.from(good)
    other[0] = 2
    const flags = Buffer.from(good)
    flags[1] = 255
    const long = Buffer.from(good)
    long.writeUInt16BE(60_000, 2)
    const faulty = [other, Buffer.alloc(0), good.subarray(0, 12), flags, long, encodePublication(publicationOf('x', 'chat:2', 1))]
    for (const bytes of faulty) connection.publish(subjects.topic('chat:1'), bytes)
    const controls = [Buffer.from([9]), Buffer.from([1]), Buffer.from([1, 1, 0, 65]), Buffer.from([1, 1, 200, 65]), encodeControl(9 as never, 'x', Buffer.alloc(0)), encodeControl(2, 'x', Buffer.alloc(0))]
    for (const bytes of controls) connection.publish(subjects.node('c'), bytes)
    connection.publish(subjects.node('c'), encodeControl(3, 'x', Buffer.from('not held')))
    connection.publish(subjects.topic('chat:1'), good)
    const newer = encodePublication(publicationOf('x', 'chat:1', 2))
    newer[1] = 32
    connection.publish(subjects.topic('chat:1'), newer)
    await until(() => c.entries.length === 2)
    t.same(c.payloads(), [1, 2], 'a flag of a newer node is ignored')
    t.equal(c.broker.stats!().unreadable, 12)
    t.same(c.causes.map(({ code }) => code), ['FST_ROOMS_BROKER_UNREADABLE'])
    t.match(c.causes[0]!.message, /its version is 2, and this node reads 1/)
    t.same(c.states, ['up', 'up'], 'the state stays')
    t.same(c.lost, faulty.map(() => ['chat:1']), 'what cannot be read may have been a publication')
    clear()
  })

  t.test('a message that is too large for the server is failed for all, and told', async t => {
    t.equal(await a.publish('chat:1', 'x'.repeat(1_100_000)), 'failed')
    t.equal(await a.publish('chat:1', 'x'.repeat(1_100_000)), 'failed')
    t.equal(await a.broker.control('*', Buffer.alloc(1_100_000)), 'unknown')
    t.same(a.causes.map(({ code }) => code).filter(code => code !== 'FST_ROOMS_BROKER_UNREADABLE'), ['FST_ROOMS_PUBLICATION_TOO_LARGE'])
    t.match(a.causes.at(-1)!.message, /"chat:1" is not sent, because it has 110\d{4} bytes, and the broker's server takes 1048576/)
    t.same(a.entries, [])
  })

  t.test('names of any length and any characters have subjects of their own', async t => {
    const names = ['a', 'A', 'ä', ' ', '*', '>', 'a.b', '\n', 'x'.repeat(255), 'ä'.repeat(255), 'ä'.repeat(254) + 'ö', '€'.repeat(255)]
    const all = names.flatMap(name => [subjects.topic(name), subjects.node(name), subjects.user(name), subjects.reply(name, 1)])
    t.equal(new Set(all).size, all.length)
    for (const subject of all) t.match(subject, /^rooms\.[tnur]\.[\w~-]{1,400}(\.1)?$/)
  })

  t.test('a closed broker delivers and sends nothing, and leaves the connection open', async t => {
    const outcome = b.publish('chat:1', 'under way')
    await b.broker.close()
    t.equal(await outcome, 'unknown')
    clear()
    t.equal(await b.publish('chat:1', 'after'), 'failed')
    t.equal(await b.broker.control('*', Buffer.alloc(0)), 'unknown')
    b.broker.hold!(['ann'], [])
    await t.rejects(b.broker.attach(['chat:1']), { code: 'FST_ROOMS_BROKER_DOWN' })
    await b.broker.close()
    await a.publish('chat:1', 'go on')
    t.same(b.entries, [])
    t.notOk(connection.isClosed())
  })

  t.test('when the connection closes for good, the state says so and calls fail at once', async t => {
    const own = await connectNats(t, host)
    const d = await startNode(t, 'd', { connection: own })
    await d.broker.attach(['chat:1'])
    await own.close()
    await until(() => d.states.at(-1) === 'down')
    t.match(d.causes.at(-1), { code: 'FST_ROOMS_BROKER_DOWN', cause: { message: 'the connection was closed' } })
    t.equal(await d.publish('chat:1', 'here'), 'failed')
    t.same(d.payloads(), ['here'], 'members of this node get it')
    await t.rejects(d.broker.attach(['other']), { code: 'FST_ROOMS_BROKER_DOWN' })
  })
})

t.test('what the server does not permit is failed or refused, and told', { skip: withoutNats }, async t => {
  const folder = await mkdtemp(joinPath(tmpdir(), 'rooms-nats-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const config = joinPath(folder, 'nats.conf')
  const denied = [subjects.topic('secret'), subjects.node('secret')].map(subject => `"${subject}"`).join(', ')
  const probe = `"${subjects.reply('blind', 'probe')}"`
  await writeFile(config, `authorization { users = [
    { user: a, password: a, permissions: { publish: { deny: [${denied}] }, subscribe: { deny: [${denied}] } } }
    { user: blind, password: b, permissions: { publish: { deny: [${probe}] } } }
    { user: deaf, password: c, permissions: { subscribe: { deny: ["${subjects.all}"] } } } ] }`)
  const { host } = await startNats(t, { options: ['-c', config] })
  const a = await startNode(t, 'a', { connection: await connectNats(t, host, { user: 'a', pass: 'a' }) })
  await t.rejects(a.broker.attach(['secret']), { code: 'FST_ROOMS_BROKER_DOWN', cause: { message: /Permissions Violation/i } })
  await t.rejects(a.broker.attach(['secret']), { code: 'FST_ROOMS_BROKER_DOWN' }, 'it is asked again')
  t.same(await Promise.all([a.publish('secret', 1), a.publish('news', 1), a.publish('secret', 2)]), ['failed', 'ok', 'failed'])
  t.equal(await a.broker.control('node:secret', Buffer.alloc(0)), 'unknown')
  t.ok(a.causes.length >= 3)
  t.same(new Set(a.states), new Set(['up']))

  const blind = await startNode(t, 'blind', { connection: await connectNats(t, host, { user: 'blind', pass: 'b' }) }, { patience: 50 })
  await until(() => blind.states.at(-1) === 'degraded')
  t.match(blind.causes[0]!.message, /Permissions Violation/i)
  const deaf = await startNode(t, 'deaf', { connection: await connectNats(t, host, { user: 'deaf', pass: 'c' }) })
  t.same(deaf.states, ['degraded'])
  t.match(deaf.causes[0]!.message, /Permissions Violation/i)
  await new Promise(resolve => setTimeout(resolve, 300))
  t.same([blind, deaf].map(({ broker }) => broker.stats!().reconnects), [0, 0], 'a new connection would be of no use')
  t.equal(blind.states.filter(state => state === 'degraded').length, 1)
})
