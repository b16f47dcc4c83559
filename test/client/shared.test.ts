import { Type } from '@sinclair/typebox'
import t, { type Test } from 'tap'
import { complete, overflow } from '../../lib/client/http.ts'
import { createRooms, listen, until, type AnyOptions } from '../helpers/app.ts'
import { atOnce, connect, has, hello, holdTimers, json, next, numbers, open, setGlobal, startFake, type Fake, type Peer } from './kit.ts'
import { startProxy } from './proxy.ts'

const topics = {
  'chat:*': { message: Type.Object({ n: Type.Number() }), publish: true, presence: Type.Object({ name: Type.String() }), history: true, limits: { members: 2 } },
  'short:*': { message: Type.Object({ n: Type.Number() }), history: { size: 2 } }
} as const

async function start (t: Test, options: AnyOptions = {}) {
  const app = await createRooms(t, { topics, authorize: () => true, ...options } as AnyOptions)
  const proxy = await startProxy(t, await listen(app))
  return { app, rooms: app.rooms as any, proxy }
}

/** The hello of the shared connection. */
const welcome = { type: 'hello', v: 1, heartbeat: 25_000, maxPayload: 1_000 }
const isShared = ({ request }: Peer): boolean => /^\/rooms(\?|$)/.test(request.url!)

/** A fake server with a shared connection. `joined` answers a join there; default: `hello`. */
async function startSharing (t: Test, joined = (peer: Peer, frame: any): void => peer.send(hello(frame.topic, { ref: frame.ref, ...frame.since && { recovered: true } })), more: Partial<Fake> = {}): Promise<Fake> {
  return startFake(t, {
    connected: peer => peer.send(isShared(peer) ? welcome : hello(decodeURIComponent(peer.request.url!.replace(/^.*\/|\?.*$/g, '')), { id: '0123456789abcdef-1' })),
    received (peer, frame) {
      if (frame.type === 'join') joined(peer, frame)
      else if (frame.type === 'ping') peer.send({ type: 'ack', ref: frame.ref, ok: true })
    },
    ...more
  })
}

/** Waits for the shared connection. */
async function shared (fake: Fake, index = 0): Promise<Peer> {
  await until(() => fake.peers.filter(isShared).length > index)
  return fake.peers.filter(isShared)[index]!
}

t.test('a room whose messages would be lost by a move, or that waits for an answer, keeps its connection', async t => {
  const fake = await startSharing(t, (peer, { topic, ref, since }) => peer.send(hello(topic, { ref, ...since && { recovered: topic !== 'chat:behind' } })))
  for (const topic of ['chat:behind', 'chat:asking']) {
    const client = connect(t, fake.host)
    const first = client.room(topic)
    await open(first)
    const [own] = fake.peers.slice(-1) as [Peer]
    const sent = topic === 'chat:asking' ? first.publish({}) : undefined
    const second = client.room('chat:2')
    await open(second)
    const peer = fake.peers.findLast(isShared)!
    await until(() => peer.frames.some(({ type }) => type === 'leave'))
    t.match(peer.frames, [{ type: 'join', topic, since: '0123456789abcdef-1', ref: 0 }, { type: 'join', topic: 'chat:2', ref: 0 }, { type: 'leave', topic, ref: 0 }])
    own.send({ type: 'ack', ref: 1, ok: true, data: 'here' })
    if (sent) t.equal(await sent, 'here')
    const got = numbers(first)
    peer.send({ type: 'message', topic, data: { n: 1 } })
    own.send({ type: 'message', data: { n: 2 } })
    await until(() => got.length === 1)
    t.same([got, first.getSnapshot().status], [[2], 'open'])
    client.close()
  }
})

t.test('a room that has moved drops the messages that its old connection has brought', async t => {
  const fake = await startSharing(t)
  const id = (n: number): string => `0123456789abcdef-${n}`
  const client = connect(t, fake.host)
  const first = client.room('chat:1')
  const got = numbers(first)
  await open(first)
  const [own] = fake.peers as [Peer]
  let answer = (): void => {}
  fake.received = (peer, { type, topic, ref }) => {
    if (type === 'join') answer = () => peer.send(hello(topic, { ref, id: id(2), recovered: true }))
    if (topic !== 'chat:1') answer()
  }
  client.room('chat:2')
  const peer = await shared(fake)
  await until(() => peer.frames.length === 2)
  for (const n of [2, 3]) own.send({ type: 'message', id: id(n), data: { n } })
  await until(() => got.length === 2)
  peer.send(hello('chat:1', { ref: 0, id: id(1), recovered: true }))
  peer.send({ type: 'presence', topic: 'chat:1', count: 1 })
  for (const n of [2, 3, 4, 5]) peer.send({ type: 'message', topic: 'chat:1', id: id(n), data: { n } })
  await until(() => got.includes(5))
  t.same([got, first.getSnapshot().id], [[2, 3, 4, 5], id(5)])
  await has(first, { count: 1 })
  await until(() => own.socket.readyState === 3)
})

t.test('a server without a shared connection gives each room its own', async t => {
  const { rooms, proxy } = await start(t, { multiplex: false })
  const client = connect(t, proxy.host)
  const all = ['chat:1', 'chat:2', 'chat:3'].map(topic => client.room(topic))
  await Promise.all(all.map(open))
  t.equal(rooms.stats().connections, 3)
  const fake = await startFake(t, { connected: peer => peer.send(hello(peer.request.url!)) })
  const root = connect(t, fake.host, { url: `http://${fake.host}` })
  await Promise.all(['chat:1', 'chat:2'].map(topic => open(root.room(topic))))
  t.same(fake.asked, ['ws /chat%3A1', 'ws /chat%3A2'], 'the root of a host is not asked')
  const wrong = connect(t, fake.host, { url: 'http://' })
  const faults = ['chat:1', 'chat:2'].map(topic => wrong.room(topic))
  for (const room of faults) await has(room, { status: 'closed' })
  t.match(faults.map(room => room.getSnapshot().error), [{ code: 'bad_url' }, { code: 'bad_url' }])
  await t.rejects(wrong.get('chat:1'), { code: 'bad_url' })
})

t.test('a page at the path of the shared connection gives each room its own', async t => {
  const fake = await startSharing(t)
  fake.connected = peer => isShared(peer) ? peer.socket.terminate() : peer.send(hello('chat'))
  fake.respond = (_request, response) => json(response, '<p>')
  const client = connect(t, fake.host)
  const all = ['chat:1', 'chat:2'].map(topic => client.room(topic))
  await Promise.all(all.map(open))
  t.equal(fake.peers.filter(peer => !isShared(peer)).length, 2)
})

t.test('the path of the shared connection is an option', async t => {
  const { rooms, proxy } = await start(t, { multiplex: '/all' })
  const client = connect(t, proxy.host, { multiplex: '/rooms/all' })
  const all = ['chat:1', 'chat:2'].map(topic => client.room(topic))
  await Promise.all(all.map(open))
  t.equal(rooms.stats().connections, 1)
})

t.test('a join that is refused for good closes that room only', async t => {
  const { rooms, proxy } = await start(t, { authorize: ({ topic }: any) => topic !== 'chat:no' } as any)
  const client = connect(t, proxy.host)
  const all = ['chat:1', 'chat:no', 'nowhere', 'chat:2'].map(topic => client.room(topic))
  await open(all[0]!)
  await open(all[3]!)
  await has(all[1]!, { status: 'closed' })
  await has(all[2]!, { status: 'closed' })
  t.match(all[1]!.getSnapshot().error, { name: 'RoomsError', code: 'FST_ROOMS_FORBIDDEN', status: 4003 })
  t.match(all[2]!.getSnapshot().error, { code: 'FST_ROOMS_NO_SUCH_TOPIC', status: 4004 })
  rooms.kick({ topic: 'chat:1' })
  await has(all[0]!, { status: 'closed' })
  t.match(all[0]!.getSnapshot().error, { code: 'kicked', status: 4005 })
  t.equal(all[3]!.getSnapshot().status, 'open')
  t.not(client.room('chat:1'), all[0])
})

t.test('a join that is refused for a while is made again within the range', async t => {
  let joins = 0
  const fake = await startSharing(t, (peer, { topic, ref }) => {
    if (topic === 'chat:full' && ++joins < 3) peer.send({ type: 'ack', topic, ref, ok: false, error: { code: 'FST_ROOMS_ROOM_FULL', message: 'full' }, close: 4102, ...joins === 1 && { retry: { min: 70_000, max: 80_000 } } })
    else peer.send(hello(topic, { ref }))
  })
  const timers = holdTimers(t, 15_000)
  const { random } = Math
  Math.random = () => 0.9
  t.teardown(() => { Math.random = random })
  const client = connect(t, fake.host)
  const full = client.room('chat:full')
  client.room('chat:2')
  await has(full, { status: 'reconnecting' })
  t.match(full.getSnapshot().error, { code: 'FST_ROOMS_ROOM_FULL', status: 4102 })
  t.ok(timers.times.includes(79_000), `${timers.times}`)
  timers.fire()
  await until(() => joins === 2 && full.getSnapshot().error !== null && timers.times.includes(18_050))
  timers.fire()
  await open(full)
  t.equal(fake.peers.length, 1)
})

t.test('a bye of one topic with a range is followed by a join; the plan ends with the room and the connection', async t => {
  const fake = await startSharing(t)
  const client = connect(t, fake.host)
  const [first, second] = ['chat:1', 'chat:2'].map(topic => client.room(topic)) as [any, any]
  await Promise.all([open(first), open(second)])
  const peer = await shared(fake)
  const once = next(first, 'reconnecting')
  peer.send({ type: 'bye', topic: 'chat:1', code: 4201, reason: 'slow', retry: { min: 10, max: 20 } })
  await once
  t.match(first.getSnapshot().error, { code: 'slow', status: 4201 })
  t.equal(second.getSnapshot().status, 'open')
  await open(first)
  const twice = next(first, 'reconnecting')
  peer.send({ type: 'bye', topic: 'chat:1', code: 4201, reason: 'slow', retry: { min: 50, max: 50 } })
  await twice
  first.leave()
  const joins = peer.frames.filter(({ type }) => type === 'join').length
  await new Promise(resolve => setTimeout(resolve, 100))
  t.equal(peer.frames.filter(({ type }) => type === 'join').length, joins, 'a room that was left is not joined')
  for (const frame of [{ type: 'message', topic: 'chat:1', data: {} }, { type: 'message', topic: 'chat:9', data: {} }, { type: 'new' }, { type: 'ack', ref: 0, ok: true }]) peer.send(frame)
  const got = numbers(second)
  peer.send({ type: 'message', topic: 'chat:2', data: { n: 1 } })
  await until(() => got.length === 1)
  fake.refusal = 0
  peer.send({ type: 'bye', topic: 'chat:2', code: 4201, reason: 'slow', retry: { min: 50, max: 50 } })
  peer.send({ type: 'bye', code: 1012, reason: 'restart', retry: { min: 200, max: 200 } })
  await until(() => second.getSnapshot().error?.code === 'restart')
  await new Promise(resolve => setTimeout(resolve, 100))
  fake.refusal = undefined
  await open(second)
})

t.test('a refusal of the room on the shared connection lets its own go on', async t => {
  const fake = await startSharing(t, (peer, { topic, ref }) => peer.send(topic === 'chat:1' ? { type: 'ack', topic, ref, ok: false, error: { code: 'FST_ROOMS_ROOM_FULL', message: 'full' }, close: 4102 } : hello(topic, { ref })))
  const client = connect(t, fake.host)
  const first = client.room('chat:1')
  await open(first)
  await open(client.room('chat:2'))
  const got = numbers(first)
  fake.peers[0]!.send({ type: 'message', data: { n: 1 } })
  await until(() => got.length === 1)
  t.equal(first.log().filter(({ error }) => error !== null).length, 0)
})

t.test('the end of the shared connection for good ends all of its rooms', async t => {
  const fake = await startSharing(t)
  const client = connect(t, fake.host)
  const all = ['chat:1', 'chat:2'].map(topic => client.room(topic))
  await Promise.all(all.map(open))
  const peer = await shared(fake)
  peer.send({ type: 'bye', code: 4005, reason: 'kicked' })
  for (const room of all) {
    await has(room, { status: 'closed' })
    t.match(room.getSnapshot().error, { code: 'kicked', status: 4005 })
  }
  const again = ['chat:1', 'chat:2'].map(topic => client.room(topic))
  await Promise.all(again.map(open))
  t.equal(fake.peers.filter(isShared).length, 2, 'rooms that are made later have a new one')
  for (const room of again) room.leave()
  await until(() => fake.peers.every(({ socket }) => socket.readyState === 3))
  await open(client.room('chat:3'))
  t.equal(fake.peers.length, 3, 'one room alone has its own')
})

t.test('messages that are kept leave with the next join of their topic', async t => {
  const handled: number[] = []
  const { proxy } = await start(t, { onMessage: { 'chat:*': async (_session: any, { n }: any) => { handled.push(n); await new Promise(resolve => setTimeout(resolve, 20)); return n * 2 } } } as any)
  const client = connect(t, proxy.host, { queue: 4 })
  const [first, second] = ['chat:1', 'chat:2'].map(topic => client.room(topic)) as [any, any]
  t.equal(await first.publish({ n: 1 }), 2)
  await open(second)
  const lost = first.publish({ n: 2 })
  await until(() => handled.includes(2))
  proxy.isDown = true
  const cut = next(second, 'reconnecting')
  proxy.cut()
  await cut
  const kept = [first.publish({ n: 3 }), second.publish({ n: 4 }), second.publish({ n: 5 }, { key: 'k' })]
  await t.rejects(second.direct('user:u', {}), { code: 'unsent' })
  proxy.isDown = false
  t.same(await Promise.all([lost, ...kept]), [4, 6, 8, 10])
  t.same(handled.sort(), [1, 2, 3, 4, 5])
  const gone = second.publish({ n: 6 })
  proxy.isDown = true
  const again = next(second, 'reconnecting')
  proxy.cut()
  await again
  second.leave()
  await gone.catch((error: unknown) => t.match(error, { code: 'unknown' }))
})

t.test('the list of members is merged, and given up in a large room', async t => {
  const { proxy } = await start(t)
  const client = connect(t, proxy.host)
  const [first] = ['chat:1', 'chat:2'].map(topic => client.room(topic, { presence: true })) as [any]
  await has(first, { count: 1 })
  const guest = connect(t, proxy.host, { multiplex: false }).room('chat:1')
  await has(first, { count: 2 })
  await open(guest)
  await guest.presence({ name: 'Ada' })
  const infos = (): unknown[] => first.getSnapshot().members.map(({ info }: any) => info)
  await until(() => infos().length === 2 && infos().some(info => info !== undefined))
  t.match(infos(), [undefined, { name: 'Ada' }])
  guest.leave()
  await has(first, { count: 1 })
  t.match(first.getSnapshot().members, [{ session: first.getSnapshot().session }])
  const fake = await startFake(t)
  const large = connect(t, fake.host).room('chat:1', { presence: true })
  await open(large)
  const [peer] = fake.peers as [Peer]
  peer.send({ type: 'presence', count: 1, state: [{ session: 'a' }] })
  await has(large, { count: 1 })
  peer.send({ type: 'presence', count: 300 })
  await has(large, { count: 300, members: null })
  peer.send({ type: 'presence', count: 301, join: [{ session: 'b' }] })
  await has(large, { count: 301, members: null })
})

t.test('a gap is state until a reload has succeeded, which is tried again', async t => {
  const errors: any[] = []
  const fake = await startFake(t, { connected: peer => peer.send(hello('chat:1', { id: '0123456789abcdef-1' })) })
  const timers = holdTimers(t, 5_000)
  let snapshot: object = { topic: 'chat:1', id: '0123456789abcdef-3', messages: [{ n: 3 }], complete: true, count: 1 }
  let status = 503
  fake.respond = (_request, response) => json(response, snapshot, status)
  const reloaded: string[] = []
  const told: unknown[] = []
  const room = connect(t, fake.host, { onerror: error => { errors.push(error) } }).room('chat:1', { reload: ({ id }) => { reloaded.push(id!) } })
  room.on('gap', gap => { told.push(gap) })
  const got = numbers(room)
  await open(room)
  const [peer] = fake.peers as [Peer]
  const gap = { type: 'gap', reason: 'slow', count: 2, from: '0123456789abcdef-1', to: '0123456789abcdef-3' }
  peer.send(gap)
  await until(() => errors.length === 1 && timers.times.includes(5_000))
  t.match(errors[0], { name: 'RoomsError', code: 'http_503', status: 503 })
  t.same([room.getSnapshot().gap, told], [gap, [gap]])
  status = 200
  peer.send({ type: 'message', id: '0123456789abcdef-4', data: { n: 4 } })
  await until(() => got.length === 1)
  timers.fire()
  await until(() => errors.length === 2 && timers.times.includes(5_000))
  t.match(errors[1], { code: 'stale' }, 'a node that is behind the last message')
  snapshot = { ...snapshot, id: '0123456789abcdef-5' }
  timers.fire()
  await until(() => room.getSnapshot().gap === null)
  for (const n of [4, 5, 6, 7]) peer.send({ type: 'message', id: `0123456789abcdef-${n}`, data: { n } })
  await until(() => got.includes(7))
  t.same([reloaded, got, room.getSnapshot().id], [['0123456789abcdef-5'], [4, 6, 7], '0123456789abcdef-7'])
})

t.test('a reload that the connection interrupts begins again, and one that is under way is shared', async t => {
  const fake = await startFake(t, { connected: peer => peer.send(hello('chat:1', { id: '0123456789abcdef-1', recovered: false })) })
  atOnce(t)
  let go = (): void => {}
  let calls = 0
  const room = connect(t, fake.host).room('chat:1', { reload: () => new Promise<void>(resolve => { calls++; go = resolve }) })
  const got = numbers(room)
  await until(() => calls === 1)
  t.equal(room.getSnapshot().recovered, false)
  const both = Promise.all([room.reload(), room.reload()])
  fake.peers[0]!.send({ type: 'message', data: { n: 1 } })
  fake.peers[0]!.send({ type: 'direct', data: 1 })
  fake.peers[0]!.socket.terminate()
  await until(() => fake.peers.length === 2 && room.getSnapshot().status === 'open')
  fake.peers[1]!.send({ type: 'message', data: { n: 2 } })
  await new Promise(resolve => setTimeout(resolve, 30))
  t.same(got, [], 'messages wait')
  go()
  await until(() => calls === 2)
  go()
  await both
  t.same([got, room.getSnapshot().recovered], [[2], true])
})

t.test('messages of an older epoch than the snapshot do not follow a reload', async t => {
  const [old, renewed] = ['0123456789abcdef', 'fedcba9876543210']
  const fake = await startFake(t, { connected: peer => peer.send(hello('chat:1', { id: `${old}-1`, recovered: true })) })
  let top = 2
  fake.respond = (_request, response) => json(response, { topic: 'chat:1', id: `${renewed}-${top}`, messages: [], complete: true, count: 1 })
  atOnce(t)
  let go: (() => void) | undefined
  const room = connect(t, fake.host).room('chat:1', { reload: () => new Promise<void>(resolve => { go = resolve }) })
  const got = numbers(room)
  await open(room)
  const send = (epoch: string, n: number): void => { fake.peers.at(-1)!.send({ type: 'message', id: `${epoch}-${n}`, data: { n } }) }
  const reloading = room.reload()
  await until(() => go !== undefined)
  send(old, 2)
  await new Promise(resolve => setTimeout(resolve, 30))
  go!()
  go = undefined
  await reloading
  send(old, 3)
  send(renewed, 2)
  send(renewed, 3)
  await until(() => got.length > 0)
  t.same([got, room.getSnapshot().id], [[3], `${renewed}-3`], 'the broker had begun a new epoch, and the node did not know it yet')

  top = 8
  const again = room.reload()
  await until(() => go !== undefined)
  go!()
  await again
  fake.peers[0]!.socket.terminate()
  await until(() => fake.peers.length === 2 && room.getSnapshot().status === 'open')
  send(old, 9)
  await until(() => got.length === 2)
  t.equal(got[1], 9, 'a new membership may begin in any epoch')
})

t.test('messages that a snapshot has do not follow it, also if another reload fails meanwhile', async t => {
  const at = (n: number): string => `0123456789abcdef-${n}`
  const errors: unknown[] = []
  const fake = await startFake(t, { connected: peer => peer.send(hello('chat:1', { id: at(1) })) })
  const timers = holdTimers(t, 5_000)
  let status = 503
  fake.respond = (_request, response) => json(response, { topic: 'chat:1', id: at(4), messages: [], complete: true, count: 1 }, status)
  let go: (() => void) | undefined
  const room = connect(t, fake.host, { onerror: error => { errors.push(error) } }).room('chat:1', { reload: () => new Promise<void>(resolve => { go = resolve }) })
  const got = numbers(room)
  await open(room)
  const [peer] = fake.peers as [Peer]
  peer.send({ type: 'gap', reason: 'lost' })
  await until(() => timers.times.includes(5_000))
  status = 200
  const reloading = room.reload()
  await until(() => go !== undefined)
  go!()
  await reloading
  t.notOk(timers.times.includes(5_000), 'nothing is missing any more')
  status = 503
  const failing = room.reload()
  peer.send({ type: 'message', id: at(4), data: { n: 4 } })
  await t.rejects(failing, { code: 'http_503' } as never)
  for (const n of [3, 4, 5]) peer.send({ type: 'message', id: at(n), data: { n } })
  await until(() => got.includes(5))
  t.same([got, errors.length], [[5], 1])
})

t.test('a reload that fails after the room was left is not tried again', async t => {
  const fake = await startFake(t, { connected: peer => peer.send(hello('chat:1', { recovered: false })) })
  const timers = holdTimers(t, 5_000)
  const errors: unknown[] = []
  let fail: (() => void) | undefined
  const room = connect(t, fake.host, { onerror: error => { errors.push(error) } }).room('chat:1', { reload: () => new Promise<void>((resolve, reject) => { fail = () => reject(new Error('late')) }) })
  await until(() => fail !== undefined)
  room.leave()
  fail!()
  await until(() => errors.length === 1)
  t.same(timers.times, [])
})

t.test('the end of a topic that comes while a room reloads follows the reload, also one that fails at first', async t => {
  const at = (offset: number): string => `0123456789abcdef-${offset}`
  for (const isAlone of [true, false]) {
    const topic = 'chat:1'
    const told = { id: at(4), recovered: false }
    const answers: ((status: number) => void)[] = []
    const fake = await startSharing(t, (peer, frame) => peer.send(hello(frame.topic, { ref: frame.ref, ...frame.topic === topic && told })), {
      ...isAlone && { connected: peer => peer.send(hello(topic, told)) },
      respond: (_request, response) => { answers.push(status => json(response, status === 200 ? { topic, id: at(5), messages: [], complete: true, count: 0 } : {}, status)) }
    })
    const timers = holdTimers(t, 5_000)
    const client = connect(t, fake.host, { onerror: () => {}, ...isAlone ? { multiplex: false } : {} })
    const events: unknown[] = []
    const other = isAlone ? undefined : client.room('chat:2')
    if (other) await open(other)
    const room = client.room(topic, { reload: ({ id }) => { events.push(id) } })
    room.on('message', ({ data }: any) => events.push(data.n))
    room.on('end', ({ reason, id }) => events.push(reason, id))
    await until(() => answers.length === 1)
    const peer = isAlone ? fake.peers[0]! : await shared(fake)
    for (const frame of [{ type: 'message', id: at(5), data: { n: 5 } }, { type: 'end', id: at(6), reason: 'done' }, { type: 'bye', code: 1000, reason: '' }]) peer.send({ ...frame, ...isAlone ? {} : { topic } })
    if (isAlone) peer.socket.close(1000)
    await until(() => isAlone ? peer.socket.readyState === 3 : peer.frames.some(({ type }) => type === 'leave'))
    t.equal(room.getSnapshot().status, 'open')
    answers[0]!(503)
    await until(() => timers.times.includes(5_000))
    t.same([events, room.getSnapshot().status], [[5], 'open'])
    timers.fire()
    await until(() => answers.length === 2)
    answers[1]!(200)
    await has(room, { status: 'closed', error: null, recovered: true, gap: null })
    t.same(events, [5, at(5), 'done', at(6)])
    t.equal(other?.getSnapshot().status ?? 'open', 'open')
    client.close()
  }
})

t.test('a room that misses messages of a topic that has ended is closed when it has reloaded', async t => {
  for (const isAlone of [true, false]) {
    const topic = 'chat:1'
    const statuses = [503, 503, 503, 503, 200]
    const told = { recovered: false }
    const bye = { type: 'bye', code: 1000, reason: '' }
    const fake = await startSharing(t, (peer, frame) => {
      peer.send(hello(frame.topic, { ref: frame.ref, ...frame.topic === topic && told }))
      if (frame.topic === topic) peer.send({ ...bye, topic })
    }, {
      ...isAlone && { connected: peer => { peer.send(hello(topic, told)); peer.send(bye); peer.socket.close(1000) } },
      respond: (_request, response) => json(response, { topic, messages: [], complete: true, count: 0 }, statuses.shift())
    })
    atOnce(t)
    holdTimers(t, 20_000)
    const { setTimeout } = globalThis
    setGlobal(t, 'setTimeout', (act: () => void, milliseconds: number, ...values: []) => setTimeout(act, milliseconds === 5_000 ? 0 : milliseconds, ...values))
    const client = connect(t, fake.host, { onerror: () => {}, ...isAlone ? { multiplex: false } : {} })
    if (!isAlone) await open(client.room('chat:2'))
    let reloads = 0
    const room = client.room(topic, { reload: () => { reloads++ } })
    await has(room, { status: 'closed', error: null, recovered: true })
    t.ok(reloads >= 1)
    t.same(statuses, [])
    client.close()
  }
})

t.test('a room reloads before it closes only if messages are missing', async t => {
  const reported: unknown[] = []
  const core: any = { url () { throw new Error('nowhere') }, roomsError: (code: string) => code, report (error: unknown) { reported.push(error) } }
  const ended = (state: object, options: object = { reload () {} }): Promise<boolean> => complete(core, { topic: 'a', now: { session: 's', ...state }, options, receive () {} } as any)
  t.equal(await ended({ recovered: true, gap: null }), true)
  t.equal(await ended({ recovered: false, gap: null }, {}), true)
  t.same(reported, [])
  t.equal(await ended({ recovered: true, gap: {} }), false)
  t.equal(await ended({ recovered: false, gap: null }), false)
  t.same(reported, ['bad_url', 'bad_url'])
})

t.test('a room that is left while it reloads at the end of its topic is not joined again', async t => {
  const topic = 'chat:1'
  const answers: (() => void)[] = []
  const fake = await startSharing(t, (peer, frame) => {
    peer.send(hello(frame.topic, { ref: frame.ref, ...frame.topic === topic && { recovered: false } }))
    if (frame.topic === topic) peer.send({ type: 'bye', code: 1000, reason: '', topic })
  }, { respond: (_request, response) => { answers.push(() => json(response, {}, 503)) } })
  atOnce(t)
  const errors: unknown[] = []
  const client = connect(t, fake.host, { onerror: error => { errors.push(error) } })
  const other = client.room('chat:2')
  await open(other)
  const room = client.room(topic, { reload: () => {} })
  await has(room, { status: 'reconnecting' })
  await until(() => answers.length === 1)
  room.leave()
  for (const answer of answers) answer()
  await until(() => errors.length === 2)
  await new Promise(resolve => setTimeout(resolve, 600))
  const peer = await shared(fake)
  t.equal(peer.frames.filter(frame => frame.type === 'join' && frame.topic === topic).length, 1)
  t.match([room.getSnapshot(), other.getSnapshot()], [{ status: 'closed', error: null }, { status: 'open' }])
})

t.test('an iteration that is 1,000 messages behind loses them, and a gap says so', async t => {
  const fake = await startFake(t)
  const room = connect(t, fake.host).room('chat:1')
  await open(room)
  const gaps: any[] = []
  room.on('gap', gap => { gaps.push(gap) })
  const iteration = room[Symbol.asyncIterator]()
  const first = iteration.next()
  const [peer] = fake.peers as [Peer]
  for (let n = 0; n < 1_100; n++) peer.send({ type: 'message', id: `0123456789abcdef-${n}`, data: { n } })
  await until(() => room.getSnapshot().last?.id === '0123456789abcdef-1099')
  t.same((await first).value.data, { n: 0 })
  peer.send({ type: 'message', id: '0123456789abcdef-1100', data: { n: 1_100 } })
  const second = (await iteration.next()).value
  t.equal(gaps.reduce((sum, { count }) => sum + count, 0), second.data.n - 1, 'the messages between are told')
  await iteration.return?.(undefined)
  t.same((await iteration.next()).done, true)
})

t.test('the loss of an iteration stands in the state, also if the connection is lost before it is told', async t => {
  const behind = Array.from({ length: 1_001 }, (_, n) => n)
  const room: any = { now: { id: 'a-1', gap: null }, receive () {}, set (changes: object) { Object.assign(room.now, changes) } }
  overflow({} as any, room, behind)
  t.same([room.now.gap, behind], [{ type: 'gap', reason: 'slow', count: 1_001, to: 'a-1' }, []])
  room.now.gap = null
  overflow({} as any, room, behind)
  t.equal(room.now.gap, null, 'an earlier call has emptied it')
})

t.test('a room whose connection is not open when another room comes moves at once', async t => {
  const fake = await startSharing(t)
  const connected = fake.connected
  fake.connected = peer => { if (isShared(peer)) connected(peer) }
  const client = connect(t, fake.host)
  const first = client.room('chat:1')
  await until(() => fake.peers.length === 1)
  await open(client.room('chat:2'))
  await open(first)
  t.same(fake.peers.map(isShared), [false, true])
  await until(() => fake.peers[0]!.socket.readyState === 3)
})

t.test('a room without a position moves if its connection is lost meanwhile', async t => {
  const fake = await startSharing(t, () => {})
  fake.connected = peer => peer.send(isShared(peer) ? welcome : hello('chat:1'))
  const client = connect(t, fake.host)
  const first = client.room('chat:1')
  const got = numbers(first)
  await open(first)
  const second = client.room('chat:2')
  const peer = await shared(fake)
  await until(() => peer.frames.length === 2)
  t.match(peer.frames, [{ type: 'join', topic: 'chat:1', since: undefined }, { type: 'join', topic: 'chat:2' }])
  fake.refusal = 0
  const lost = next(first, 'reconnecting')
  fake.peers[0]!.socket.terminate()
  await lost
  for (const topic of ['chat:1', 'chat:2']) peer.send(hello(topic, { ref: 0 }))
  await open(first)
  await open(second)
  peer.send({ type: 'message', topic: 'chat:1', data: { n: 1 } })
  await until(() => got.length === 1)
})

t.test('a shared connection whose WebSocket does not come through once is tried again', async t => {
  const fake = await startSharing(t, undefined, { refusal: 0 })
  fake.respond = (_request, response) => {
    fake.refusal = undefined
    json(response, { v: 1, protocols: ['rooms.v1'] })
  }
  const client = connect(t, fake.host)
  const all = ['chat:1', 'chat:2'].map(topic => client.room(topic))
  await Promise.all(all.map(open))
  t.same(fake.peers.map(isShared), [true])
  t.same(fake.asked.slice(0, 2), ['ws /rooms', '/rooms'])
})
