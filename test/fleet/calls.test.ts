import { Type } from '@sinclair/typebox'
import t from 'tap'
import { memoryBroker } from '../../lib/index.ts'
import type { Rooms } from '../../types/index.ts'
import { connect, createRooms, join, listen, until } from '../helpers/app.ts'
import { createFleet } from '../helpers/fleet-broker.ts'
import { turns } from '../helpers/turns.ts'

const topics = { 'chat:*': { publish: true }, numbers: { message: Type.Number() } } as const
const none = async (client: { next (options?: { timeout: number }): Promise<unknown> }, text: string, t: any) => t.rejects(client.next({ timeout: 30 }), { code: 'FST_ROOMS_INJECT_TIMEOUT' }, text)

t.test('the id of a session carries its node', async t => {
  const { nodes: [a, b] } = await createFleet(t, 2, { topics })
  const [ann, ben] = [await a!.join('chat:1'), await b!.join('chat:1')]
  t.match(a!.broker.id, /^[0-9A-Za-z]{12}$/)
  t.not(a!.broker.id, b!.broker.id)
  t.ok(ann.session.startsWith(`${a!.broker.id}-`))
  t.match(ben.session, new RegExp(`^${b!.broker.id}-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`))
})

t.test('with a broker of this process ids of sessions are UUIDs, and it is not asked for other nodes', async t => {
  const broker = memoryBroker()
  const fail = (): never => { throw new Error('not with a broker of this process') }
  broker.control = broker.hold = fail
  const app = await createRooms(t, { broker, topics: { ...topics, 'run:*': { stream: true } }, identify: () => ({ user: 'ann' }) })
  const rooms = app.rooms as Rooms<any>
  const client = await rooms.inject('/rooms/chat:1')
  const { session } = await client.next('hello')
  t.match(session, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/)
  const other = `${'x'.repeat(12)}-${session}`
  await t.rejects(rooms.send(other, 1), { code: 'FST_ROOMS_NO_SUCH_SESSION' })
  await t.rejects(rooms.ask(other, 1), { code: 'FST_ROOMS_NO_SUCH_SESSION' })
  t.same(await rooms.sendToUser('ben', 1), { local: 0, published: true })
  for (const selector of [{ session: other }, { user: 'ben' }, { topic: 'chat:2' }]) t.same([await rooms.kick(selector), await rooms.reauthorize(selector)], [0, 0])
  t.equal(await rooms.stop('run:1'), false)
  for (const to of [other, 'user:ben']) {
    client.send({ type: 'direct', to, data: 1, ref: 1 })
    t.match(await client.next('ack'), { ok: false, error: { code: 'FST_ROOMS_NO_SUCH_SESSION' } })
  }
  await turns(2)
  t.match(rooms.stats(), { brokerFaults: 0, errors: 0 })
})

t.test('send reaches a session of another node alone, and its errors are those of a session here', async t => {
  const { exchange, nodes: [a, b, c] } = await createFleet(t, 3, { topics })
  const [ann, ben, cleo] = [await a!.join('chat:1'), await b!.join('chat:1'), await c!.join('numbers')]
  await a!.rooms.send(ben.session, { hi: 'ä' })
  t.same(await ben.next('direct'), { type: 'direct', data: { hi: 'ä' } })
  t.same(exchange.sent.map(({ to, message }) => [to, message.type]), [[`node:${b!.broker.id}`, 'send'], [`node:${a!.broker.id}`, 'answer']])
  await none(ann, 'the own node has sent nothing to its members', t)

  await b!.rooms.send(cleo.session, 7)
  t.match(await cleo.next('direct'), { data: 7 })
  for (const rooms of [a!.rooms, c!.rooms]) {
    await t.rejects(rooms.send(cleo.session, 'text'), { code: 'FST_ROOMS_INVALID_PAYLOAD', message: 'invalid payload: must be number', details: [{ path: '', message: 'must be number' }] })
    await t.rejects(rooms.send(cleo.session, undefined), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
    await t.rejects(rooms.send(cleo.session, 1n), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
  }
  await t.rejects(a!.rooms.send(ben.session, 'x'.repeat(16_777_216)), { code: 'FST_ROOMS_INVALID_PAYLOAD', message: /over the limit of 16777216/ })
  await ben.close()
  await until(() => b!.rooms.stats().members === 0)
  await t.rejects(a!.rooms.send(ben.session, 1), { code: 'FST_ROOMS_NO_SUCH_SESSION', message: new RegExp(ben.session) })
  await t.rejects(a!.rooms.send(`${'x'.repeat(12)}-${ben.session.slice(13)}`, 1), { code: 'FST_ROOMS_NO_SUCH_SESSION' }, 'a node that is gone')
  for (const session of ['nobody', ann.session + 'x', 7 as never]) await t.rejects(a!.rooms.send(session, 1), { code: 'FST_ROOMS_NO_SUCH_SESSION' })
  t.equal(exchange.sent.filter(({ message }) => message.session === 'nobody').length, 0)
})

t.test('send to a session of another node that reads slowly settles when it has read, at the latest after half of limits.publish', async t => {
  const { nodes: [a, b] } = await createFleet(t, 2, { topics, limits: { publish: 1_000 }, slow: { bytes: 1_000_000_000 } })
  const ben = await join(t, `${await listen(b!.app)}/rooms/chat:1`)
  const { session } = ben.hello
  ben.socket.pause()
  // The kernel buffers some megabytes; only bytes beyond that wait in the process.
  await until(async () => {
    b!.rooms.send(session, 'x'.repeat(1_000_000)).catch(() => {})
    await turns(1)
    return b!.rooms.stats().queuedBytes > 65_536
  })
  const from = performance.now()
  await a!.rooms.send(session, 'late')
  t.ok(performance.now() - from >= 450, 'half of the time')
  const read = a!.rooms.send(session, 'read')
  ben.socket.resume()
  await read
  t.ok(ben.received.length > 0)
})

t.test('ask is answered by a session of another node, and fails as one of this node does', async t => {
  const joined: string[] = []
  const { exchange, nodes: [a, b] } = await createFleet(t, 2, { topics, onJoin: session => { joined.push(session.id) } })
  const ben = await b!.join('chat:1')
  const answered = a!.rooms.ask(ben.session, 'ready?')
  const question = await ben.next('direct')
  ben.send({ type: 'ack', ref: question.ref, data: { yes: [1, null] } })
  t.same(await answered, { yes: [1, null] })
  const silent = a!.rooms.ask(ben.session, 1)
  ben.send({ type: 'ack', ref: (await ben.next('direct')).ref })
  t.equal(await silent, undefined)

  for (const rooms of [a!.rooms, b!.rooms]) await t.rejects(rooms.ask(ben.session, 2, { timeout: 30 }), { code: 'FST_ROOMS_ASK_TIMEOUT', message: /within 30 ms/ })
  await t.rejects(a!.rooms.ask(ben.session, undefined), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
  const raw = await b!.rooms.inject('/rooms/chat:1', { mode: 'rooms.raw' })
  await until(() => b!.rooms.stats().members === 2)
  await t.rejects(a!.rooms.ask(joined.at(-1)!, 1), { code: 'FST_ROOMS_NOT_ASKABLE' })
  await raw.close()

  const stop = new AbortController()
  const aborted = a!.rooms.ask(ben.session, 'abort', { signal: stop.signal })
  while ((await ben.next('direct')).data !== 'abort');
  stop.abort(new Error('mine'))
  await t.rejects(aborted, { message: 'mine' })
  await t.rejects(a!.rooms.ask(ben.session, 3, { signal: stop.signal }), { message: 'mine' })
  await until(() => exchange.sent.filter(({ message }) => message.type === 'cancel').length >= 2)
  await turns(5)
  const before = exchange.sent.length
  await ben.close()
  await turns(5)
  t.equal(exchange.sent.length, before, 'a question that was given up is not answered')

  const dora = await b!.join('chat:1')
  const left = a!.rooms.ask(dora.session, 4)
  await dora.next('direct')
  await dora.close()
  await t.rejects(left, { code: 'FST_ROOMS_SESSION_CLOSED' })
})

t.test('sendToUser reaches the sessions of the user on all nodes that hold it, in all topics or in one', async t => {
  const errors: Error[] = []
  const { exchange, nodes: [a, b, c] } = await createFleet(t, 3, { topics, onError: error => { errors.push(error) } })
  const [here, chat, numbers] = [await a!.join('chat:1', 'ann'), await b!.join('chat:2', 'ann'), await b!.join('numbers', 'ann')]
  const ben = await c!.join('chat:1', 'ben')
  await turns(3)
  t.same(await a!.rooms.sendToUser('ann', 1), { local: 1, published: true })
  for (const client of [here, chat, numbers]) t.match(await client.next('direct'), { data: 1 })
  t.same(await c!.rooms.sendToUser('ann', 'only chat', { topic: 'chat:2' }), { local: 0, published: true })
  t.match(await chat.next('direct'), { data: 'only chat' })
  t.same(await a!.rooms.sendToUser('carl', 1), { local: 0, published: true }, 'no node has sessions of the user')
  t.same(await a!.rooms.sendToUser('x'.repeat(300), 1), { local: 0, published: true }, 'no identity has such a name')
  await t.rejects(c!.rooms.sendToUser('ann', undefined), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
  await t.rejects(c!.rooms.sendToUser('ann', 'text', { topic: 'numbers' }), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
  t.equal(exchange.sent.filter(({ to }) => to === 'user:ann').length, 2)
  await none(ben, 'another user gets nothing', t)

  await c!.rooms.sendToUser('ann', 'text')
  t.match(await here.next('direct'), { data: 'text' })
  await until(() => errors.length > 0)
  t.match(errors, [{ code: 'FST_ROOMS_INVALID_PAYLOAD' }], 'a node whose topic refuses the payload tells its host')
  await none(chat, 'no session of that node has got it', t)
})

t.test('a broker without hold is told of no users, and brings what is for a user to all nodes', async t => {
  const { nodes: [a, b] } = await createFleet(t, 2, { topics }, false)
  const ann = await b!.join('chat:1', 'ann')
  t.same(await a!.rooms.sendToUser('ann', 1), { local: 0, published: true })
  t.match(await ann.next('direct'), { data: 1 })
})

t.test('the broker is told of the first and the last session of a user, once a turn, also of connections without a topic', async t => {
  const { nodes: [a] } = await createFleet(t, 1, { topics })
  const one = await a!.join('chat:1', 'ann')
  const two = await a!.join('chat:2', 'ann')
  await a!.join('chat:1')
  await until(() => a!.broker.held.length === 1)
  t.same(a!.broker.held, [{ add: ['ann'], remove: [] }])
  await one.close()
  await turns(3)
  t.equal(a!.broker.held.length, 1)
  const wide = await a!.rooms.inject('/rooms', { headers: { 'x-user': 'ben' } }) as any
  await wide.next('hello')
  await a!.rooms.inject('/rooms')
  await until(() => a!.broker.held.length === 2)
  await two.close()
  await until(() => a!.broker.held.length === 3)
  t.same(a!.broker.held.slice(1), [{ add: ['ben'], remove: [] }, { add: [], remove: ['ann'] }])
  wide.send({ type: 'join', topic: 'chat:1' })
  await wide.next('hello')
  wide.send({ type: 'leave', topic: 'chat:1' })
  wide.send({ type: 'ping', ref: 1 })
  await wide.next('ack')
  await turns(3)
  t.equal(a!.broker.held.length, 3)
  await wide.close()
  await until(() => a!.broker.held.length === 4)
  t.same(a!.broker.held[3], { add: [], remove: ['ben'] })
})

t.test('kick by session, user and topic ends sessions on all nodes, and joins that are under way', async t => {
  const { exchange, nodes: [a, b, c] } = await createFleet(t, 3, { topics })
  const joinAll = async () => Promise.all([a!, b!, c!].flatMap(node => [node.join('chat:1', 'ann'), node.join('chat:2', 'ben')]))
  let [annA, benA, annB, benB, annC, benC] = await joinAll()
  t.equal(await a!.rooms.kick({ session: annB!.session }, { code: 4400, reason: 'ä' }), 1)
  t.same(await annB!.closed, { code: 4400, reason: 'ä' })
  t.equal(await a!.rooms.kick({ session: annB!.session }), 0, 'it has ended')
  t.equal(await a!.rooms.kick({ session: `${'x'.repeat(12)}-${annB!.session.slice(13)}` }), 0, 'its node is gone')
  t.equal(await a!.rooms.kick({ session: benB!.session, user: 'ann' }), 0)
  t.equal(await a!.rooms.kick({ session: benB!.session, topic: 'chat:1' }), 0)
  t.equal(await a!.rooms.kick({ session: benB!.session, user: 'x'.repeat(300) }), 0)
  t.equal(await a!.rooms.kick({ user: 'x'.repeat(300) }), 0)
  t.equal(exchange.sent.filter(({ to }) => to === '*').length, 0)

  t.equal(await a!.rooms.kick({ user: 'ann', topic: 'chat:1' }), 1, 'the number on this node')
  t.equal((await annA!.closed).code, 4005)
  t.equal((await annC!.closed).code, 4005)
  await none(benC!, 'another user stays', t)
  const wide = await c!.rooms.inject('/rooms', { headers: { 'x-user': 'ben' } })
  t.equal(await b!.rooms.kick({ topic: 'chat:2' }), 1)
  for (const client of [benA, benB, benC]) t.equal((await client!.closed).code, 4005)
  t.equal(await a!.rooms.kick({ user: 'ben' }), 0)
  t.equal((await wide.closed).code, 4005, 'a connection without a topic ends with its user');

  [annA, benA, annB, benB, annC, benC] = await joinAll()
  await t.rejects(a!.rooms.kick({}), { code: 'FST_ROOMS_INVALID_SELECTOR' })
  t.same([a!, b!, c!].map(({ rooms }) => rooms.stats().members), [2, 2, 2])
})

t.test('a kick of a user on one node refuses an upgrade that is under way on another, which has no session of the user', async t => {
  let identified: (() => void) | undefined
  const { nodes: [a, b] } = await createFleet(t, 2, {
    topics,
    identify: async () => {
      await new Promise<void>(resolve => { identified = resolve })
      return { user: 'ann' }
    }
  })
  const joining = connect(t, `${await listen(b!.app)}/rooms/chat:1`)
  await until(() => identified !== undefined)
  t.equal(await a!.rooms.kick({ user: 'ann' }), 0)
  await turns(5)
  identified!()
  t.equal((await (await joining).closed).code, 4005)
})

t.test('reauthorize asks about sessions on all nodes', async t => {
  const banned = new Set<string>()
  const { nodes: [a, b] } = await createFleet(t, 2, { topics, authorize: (context: any) => context.action !== 'stay' || !banned.has(context.session.user) })
  const [annA, annB, benB] = [await a!.join('chat:1', 'ann'), await b!.join('chat:1', 'ann'), await b!.join('chat:1', 'ben')]
  t.equal(await a!.rooms.reauthorize({ topic: 'chat:1' }), 0)
  await turns(5)
  banned.add('ben')
  t.equal(await a!.rooms.reauthorize({ session: benB.session }), 1)
  t.equal((await benB.closed).code, 4301)
  t.equal(await a!.rooms.reauthorize({ session: benB.session }), 0)
  banned.add('ann')
  t.equal(await b!.rooms.reauthorize({ user: 'ann' }), 1)
  for (const client of [annA, annB]) t.equal((await client.closed).code, 4301)
  await t.rejects(a!.rooms.reauthorize({ topic: 'weather' }), { code: 'FST_ROOMS_NO_SUCH_TOPIC' })
})
