import t, { type Test } from 'tap'
import { connect, createRooms, join, listen, refused, until, type AnyOptions, type Client } from './helpers/app.ts'
import { joinMute } from './helpers/wire.ts'

const sleep = (milliseconds: number) => new Promise(resolve => setTimeout(resolve, milliseconds))

async function serve (t: Test, options: AnyOptions = {}) {
  const left: any[] = []
  const sessions = new Map<string, any>()
  const app = await createRooms(t, {
    identify: request => typeof request.headers['x-user'] === 'string' ? { user: request.headers['x-user'] } : null,
    onJoin: session => { sessions.set(session.id, session) },
    onLeave: (session, reason) => { left.push([session.id, reason]) },
    ...options
  })
  const url = await listen(app)
  const as = (user: string, topic = 'chat') => join(t, `${url}/rooms/${topic}`, { headers: { 'x-user': user } })
  return { app, rooms: app.rooms as any, url, left, sessions, as }
}

const last = (client: Client) => JSON.parse(client.received.at(-1)!)

t.test('kick ends the sessions that match all given fields', async t => {
  const { rooms, as, left } = await serve(t)
  const [ann, ann2, annElsewhere, bob] = [await as('ann'), await as('ann'), await as('ann', 'other'), await as('bob')]
  t.equal(await rooms.kick({ session: 'nobody' }), 0)
  t.equal(await rooms.kick({ user: 'nobody' }), 0)
  t.equal(await rooms.kick({ topic: 'nowhere' }), 0)
  t.equal(await rooms.kick({ session: bob.hello.session, user: 'ann' }), 0, 'both must match')
  t.equal(await rooms.kick({ session: bob.hello.session, topic: 'other' }), 0, 'both must match')
  t.equal(await rooms.kick({ session: ann.hello.session }), 1)
  t.same(await ann.closed, { code: 4005, reason: 'kicked' })
  t.match(last(ann), { type: 'bye', code: 4005, reason: 'kicked', id: ann.hello.id })
  t.equal(await rooms.kick({ user: 'ann', topic: 'chat' }, { code: 4999, reason: 'own words' }), 1)
  t.same(await ann2.closed, { code: 4999, reason: 'own words' })
  t.match(await annElsewhere.ask({ type: 'ping' }), { ok: true })
  t.equal(await rooms.kick({ topic: 'chat' }, { code: 4007 }), 1)
  t.same(await bob.closed, { code: 4007, reason: 'topic_closed' })
  t.equal(await rooms.kick({ user: 'ann' }), 1)
  await annElsewhere.closed
  t.same(left.map(([, { code }]) => code), [4005, 4999, 4007, 4005])
  await t.rejects(rooms.kick({}), { code: 'FST_ROOMS_INVALID_SELECTOR' })
})

t.test('close takes codes that a server may send, and reasons that fit into a close frame', async t => {
  const { rooms, as, sessions } = await serve(t)
  const client = await as('ann')
  const session = sessions.get(client.hello.session)
  for (const code of [0, 999, 1004, 1005, 1006, 1010, 1015, 2999, 5000, 4000.5, Number.NaN, '4000']) {
    t.throws(() => session.close(code), { code: 'FST_ROOMS_INVALID_CLOSE' }, String(code))
    await t.rejects(rooms.kick({ user: 'ann' }, { code }), { code: 'FST_ROOMS_INVALID_CLOSE' })
  }
  for (const reason of ['x'.repeat(124), 'ü'.repeat(62), 7, null]) {
    t.throws(() => session.close(4000, reason), { code: 'FST_ROOMS_INVALID_CLOSE' }, String(reason))
    await t.rejects(rooms.kick({ user: 'ann' }, { reason }), { code: 'FST_ROOMS_INVALID_CLOSE' })
  }
  t.match(await client.ask({ type: 'ping' }), { ok: true }, 'a refused close leaves the session open')
  session.close(4000, 'ü'.repeat(61))
  t.same(await client.closed, { code: 4000, reason: 'ü'.repeat(61) })
})

t.test('session.close sends 1000 normal by default, and works only once', async t => {
  const { rooms, as, left, sessions } = await serve(t)
  const cases: [args: unknown[], code: number, reason: string][] = [[[], 1000, 'normal'], [[4003], 4003, 'forbidden'], [[3000], 3000, ''], [[3000, 'why'], 3000, 'why']]
  for (const [args, code, reason] of cases) {
    const client = await as('ann')
    const session = sessions.get(client.hello.session)
    session.close(...args)
    t.equal(session.state, 'closed', 'the state changes at once')
    t.equal(await rooms.count('chat'), 0)
    session.close(4999, 'too late')
    t.equal(await rooms.kick({ user: 'ann' }), 0)
    t.same(await client.closed, { code, reason })
    t.equal(client.received.filter(text => text.includes('"bye"')).length, 1)
    t.same(left.pop(), [session.id, { code, reason }])
    t.same(left, [])
  }
})

t.test('bye gives a retry range that depends on the code, and the position of the member', async t => {
  const { rooms, as } = await serve(t)
  const backoff = { min: 1_000, max: 20_000 }
  const resume = { min: 500, max: 15_000 }
  const cases: [code: number, retry: object | undefined][] = [
    [1000, undefined], [1008, undefined], [4000, undefined], [4099, undefined], [4300, undefined],
    [4100, backoff], [4199, backoff],
    [1001, resume], [1012, resume], [4202, resume], [4400, resume], [4999, resume], [3000, resume]
  ]
  for (const [code, retry] of cases) {
    const client = await as('ann')
    const { id } = await rooms.broadcast('chat', code)
    await rooms.kick({ user: 'ann' }, { code, reason: 'why' })
    t.match(await client.closed, { code })
    t.same(last(client), { type: 'bye', code, reason: 'why', ...(retry === undefined ? {} : { retry }), id })
  }
  for (const code of [4201, 4203]) {
    const client = await as('ann')
    await rooms.kick({ user: 'ann' }, { code })
    t.match(await client.closed, { code })
    t.notMatch(last(client), { type: 'bye' })
  }
})

t.test('close inside onMessage: earlier messages arrive, later ones do not', async t => {
  const { rooms, as } = await serve(t, {
    onMessage: {
      '*': async session => {
        await session.rooms.broadcast('chat', 'before')
        session.close(4001)
        await session.rooms.broadcast('chat', 'after')
        await session.send('private').catch((error: any) => session.rooms.broadcast('chat', error.code))
        return 'never told'
      }
    }
  })
  const [ann, bob] = [await as('ann'), await as('bob')]
  ann.send({ type: 'message', data: 1, ref: 1 })
  ann.send({ type: 'message', data: 2, ref: 2 })
  t.match(await ann.closed, { code: 4001 })
  const frames = ann.received.map(text => JSON.parse(text)).filter(({ type }) => type !== 'presence')
  t.match(frames, [{ type: 'hello' }, { data: 'before' }, { type: 'bye' }])
  t.equal(frames.length, 3)
  for (const data of ['before', 'after', 'FST_ROOMS_SESSION_CLOSED']) t.match(await bob.next('message'), { data })
  t.equal(await rooms.count('chat'), 1)
})

t.test('close inside onJoin refuses the join, and drops what the hook sent before', async t => {
  const { rooms, url, left } = await serve(t, {
    onJoin: async session => {
      await session.send('welcome')
      session.close(4001)
    }
  })
  const client = await connect(t, `${url}/rooms/chat`)
  t.match(await client.closed, { code: 4001 })
  t.same(client.received.map(text => JSON.parse(text)), [{ type: 'bye', code: 4001, reason: 'unauthorized' }])
  await until(() => rooms.stats().connections === 0)
  t.match(rooms.stats(), { refused: 1, topics: 0, members: 0 })
  t.match(left, [[String, { code: 4001 }]])
})

t.test('close inside onLeave changes nothing, and onLeave may kick another member', async t => {
  const { rooms, as, left } = await serve(t, {
    onLeave: async (session, reason) => {
      left.push([session.user, reason.code])
      session.close(4999)
      if (session.user === 'ann') await session.rooms.kick({ user: 'bob' })
    }
  })
  const [ann, bob] = [await as('ann'), await as('bob')]
  await ann.close()
  t.match(await bob.closed, { code: 4005 })
  t.same(left, [['ann', 1005], ['bob', 4005]])
  await until(() => rooms.stats().connections === 0)
})

t.test('close between two broadcasts of one turn: the member gets the first, and other members get both', async t => {
  const { rooms, as } = await serve(t)
  const [ann, bob, eve] = [await as('ann'), await as('bob'), await as('eve')]
  const results = await Promise.all([rooms.broadcast('chat', 1), rooms.kick({ user: 'ann' }), rooms.broadcast('chat', 2)])
  t.same([results[0].local, results[1], results[2].local], [3, 1, 2])
  await ann.closed
  t.same(ann.received.map(text => JSON.parse(text)).filter(({ type }) => type === 'message').map(({ data }) => data), [1])
  t.equal(last(ann).id, results[0].id)
  for (const client of [bob, eve]) t.match([await client.next('message'), await client.next('message')], [{ data: 1 }, { data: 2 }])
})

t.test('onLeave gets the code of a member\'s own close, after the messages that the member sent before it', async t => {
  const seen: unknown[] = []
  const { rooms, as } = await serve(t, {
    onMessage: { '*': async (_session, payload) => { await sleep(20); seen.push(payload) } },
    onLeave: (_session, reason) => { seen.push(reason) }
  })
  const ann = await as('ann')
  for (let i = 0; i < 3; i++) ann.send({ type: 'message', data: i })
  ann.socket.close(4321, 'bye then')
  t.same(await ann.closed, { code: 4321, reason: 'bye then' })
  await until(() => seen.length === 4)
  t.same(seen, [0, 1, 2, { code: 4321, reason: 'bye then' }])
  const bob = await as('bob')
  bob.socket.terminate()
  await until(() => seen.length === 5)
  t.same(seen[4], { code: 1006, reason: '' })
  t.match(rooms.stats(), { connections: 0, members: 0, topics: 0 })
})

t.test('app.close sends bye to all members, delivers accepted messages, and waits for a mute member only until drain.timeout', async t => {
  const { app, rooms, url, as, left } = await serve(t, { drain: { timeout: 300 }, heartbeat: false })
  const [ann, raw] = [await as('ann'), await connect(t, `${url}/rooms/chat`, 'rooms.raw')]
  const mute = await joinMute(t, `${url}/rooms/chat`)
  await until(async () => await rooms.count('chat') === 3)
  const { id } = await rooms.broadcast('chat', 'last')
  const start = performance.now()
  await app.close()
  const took = performance.now() - start
  t.ok(took >= 250, 'app.close waits for the closing handshake')
  t.ok(took < 8_000, `app.close ends soon after drain.timeout: ${took} ms`)
  t.same(await ann.closed, { code: 1001, reason: 'going_away' })
  t.match(ann.received.slice(-2).map(text => JSON.parse(text)), [{ type: 'message', data: 'last' }, { type: 'bye', code: 1001, reason: 'going_away', retry: { min: Number, max: 1_000 }, id }])
  t.same(await raw.closed, { code: 1001, reason: 'going_away' })
  t.same(raw.received, ['last'])
  await until(() => mute.socket.closed)
  t.match(mute.text(), '"bye"')
  t.equal(left.length, 3)
  t.match(rooms.stats(), { connections: 0, members: 0, topics: 0, queuedBytes: 0 })
})

t.test('a drain without members ends at once, and two drains are one', async t => {
  const { app, rooms, url } = await serve(t)
  t.match(rooms.health(), { ok: true, state: 'open', broker: 'up' })
  const client = await join(t, `${url}/rooms/chat`)
  await Promise.all([rooms.drain(), rooms.drain()])
  t.match(await client.closed, { code: 1001 })
  t.equal(client.received.filter(text => text.includes('"bye"')).length, 1)
  t.match(rooms.health(), { ok: false, state: 'draining', broker: 'up' })
  t.match(await refused(`${url}/rooms/chat`), { status: 503, body: { code: 'FST_ROOMS_DRAINING' } })
  await rooms.drain()
  t.match(await rooms.broadcast('chat', 1), { local: 0, published: true }, 'a broadcast of a handler in flight still resolves')
  await app.close()
  t.match(rooms.health(), { ok: false, state: 'closed' })
  await t.rejects(rooms.broadcast('chat', 1), { code: 'FST_ROOMS_CLOSED' })
})

t.test('between preClose and onClose a broadcast resolves with no receivers; after onClose it is refused', async t => {
  const app = await createRooms(t)
  const rooms = app.rooms as any
  const results: any[] = []
  app.addHook('preClose', async () => { results.push(await rooms.broadcast('chat', 1), rooms.health()) })
  const ann = await join(t, `${await listen(app)}/rooms/chat`)
  await app.close()
  t.match(results, [{ topic: 'chat', local: 0, published: true }, { ok: false, state: 'draining' }])
  await t.rejects(rooms.broadcast('chat', 1), { code: 'FST_ROOMS_CLOSED', statusCode: 503 })
  t.match(await ann.closed, { code: 1001 })
})

t.test('a join under way at the begin of a drain is refused with 1001', async t => {
  let open = (): void => {}
  const { rooms, url, left } = await serve(t, { onJoin: () => new Promise<void>(resolve => { open = resolve }) })
  const client = await connect(t, `${url}/rooms/chat`)
  await until(() => rooms.stats().connections === 1)
  await rooms.drain()
  t.same(await client.closed, { code: 1001, reason: 'going_away' })
  t.match(client.received.map(text => JSON.parse(text)), [{ type: 'bye', code: 1001 }])
  t.same(left, [])
  open()
  await until(() => left.length === 1)
})

t.test('a join that onJoin accepts while app.close waits for messages is refused with 1001, and other members do not see it', async t => {
  let open = (): void => {}
  let finish = (): void => {}
  const { app, rooms, url, as, left } = await serve(t, {
    drain: { timeout: 9_900 },
    heartbeat: false,
    onJoin: async (session, request) => {
      if (request.headers['x-user'] === 'late') await new Promise<void>(resolve => { open = resolve })
      if (request.headers['x-user'] === 'reader') {
        await new Promise<void>(resolve => { open = resolve })
        t.ok((await session[Symbol.asyncIterator]().next()).done)
      }
    },
    onMessage: { '*': () => new Promise<void>(resolve => { finish = resolve }) }
  })
  const ann = await as('ann')
  ann.send({ type: 'message', data: 1 })
  await until(() => rooms.stats().working === 1)
  const late: Client[] = []
  const doors: (() => void)[] = []
  for (const user of ['late', 'reader']) {
    open = () => {}
    const shut = open
    late.push(await connect(t, `${url}/rooms/chat?presence=1`, [], { headers: { 'x-user': user } }))
    await until(() => open !== shut)
    doors.push(open)
  }
  const closing = app.close()
  await until(() => rooms.health().state === 'draining')
  for (const door of doors) door()
  for (const client of late) {
    t.same(await client.closed, { code: 1001, reason: 'going_away' })
    t.match(client.received.map(text => JSON.parse(text)), [{ type: 'bye', code: 1001, retry: { max: 1_000 } }])
  }
  t.equal(await rooms.count('chat'), 1)
  t.match(left.map(([, { code }]) => code), [1001, 1001], 'onLeave is called because onJoin accepted both sessions')
  t.match(rooms.stats(), { joined: 1, refused: 2, refusals: { draining: 2 } })
  finish()
  await closing
})

t.test('no state remains after members joined and left in every possible way', async t => {
  let n = 0
  const { rooms, url } = await serve(t, {
    limits: { handshake: 1_000, pending: 2 },
    onJoin: async (session, request) => {
      const how = Number(request.headers['x-how'])
      if (how === 1) return false
      if (how === 2) throw new Error('no')
      if (how === 3) await sleep(30)
      if (how === 4) await new Promise(() => {})
      if (how === 5) session.close(4001)
    },
    onMessage: { '*': async () => { if (n++ % 2 === 0) await sleep(5) } },
    onError: () => {}
  })
  const clients: Client[] = []
  for (let i = 0; i < 60; i++) {
    const client = await connect(t, `${url}/rooms/room${i % 7}`, i % 3 === 0 ? 'rooms.raw' : [], { headers: { 'x-how': String(i % 6), 'x-user': `u${i % 5}` } })
    clients.push(client)
    client.send('{"type":"message","data":1}')
    if (i % 6 === 3 && i % 4 !== 1) client.socket.terminate()
    if (i % 10 === 0) client.send('x'.repeat(200_000))
  }
  for (const [index, { socket }] of clients.entries()) index % 2 === 0 ? socket.terminate() : socket.close()
  await until(() => rooms.stats().connections === 0)
  t.match(rooms.stats(), { connections: 0, topics: 0, members: 0, queuedBytes: 0 })
  t.same(await rooms.topics(), [])
  for (let i = 0; i < 5; i++) t.equal((await rooms.sendToUser(`u${i}`, 1)).local, 0)
  for (let i = 0; i < 7; i++) t.equal(await rooms.kick({ topic: `room${i}` }), 0)
})
