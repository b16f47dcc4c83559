import t, { type Test } from 'tap'
import { connect, createRooms, join, listen, until, type AnyOptions } from './helpers/app.ts'

const sleep = (milliseconds: number) => new Promise(resolve => setTimeout(resolve, milliseconds))

async function serve (t: Test, options?: AnyOptions) {
  const app = await createRooms(t, options)
  return { app, rooms: app.rooms as any, url: await listen(app) }
}

/** A promise that is settled from outside. */
function gate () {
  let open!: () => void
  return { closed: new Promise<void>(resolve => { open = resolve }), open }
}

t.test('hello is the first frame and has all documented members', async t => {
  const { url } = await serve(t, { heartbeat: { interval: 5_000 }, limits: { payload: 1_000 } })
  const client = await connect(t, `${url}/rooms/news`)
  const text = await client.text()
  t.match(text, /^{"type":"hello","id":"[0-9a-f]{16}-0","v":1,"session":"[^"]+","topic":"news","heartbeat":5000,"maxPayload":1000}$/)
})

t.test('hello says 0 if heartbeats are off, and gives the limit of its topic', async t => {
  const { url } = await serve(t, { heartbeat: false, topics: { news: { limits: { payload: 77 } } } })
  t.match((await join(t, `${url}/rooms/news`)).hello, { heartbeat: 0, maxPayload: 77 })
})

t.test('a client that only listens never has to send a frame', async t => {
  const { rooms, url } = await serve(t)
  const client = await join(t, `${url}/rooms/news`)
  await rooms.broadcast('news', 1)
  await rooms.broadcast('news', 2)
  t.match([await client.next('message'), await client.next('message')], [{ data: 1 }, { data: 2 }])
})

t.test('frames that a client sends before hello are handled after it, in order', async t => {
  const door = gate()
  const { url } = await serve(t, { onJoin: () => door.closed })
  const client = await connect(t, `${url}/rooms/news`)
  client.send({ type: 'message', data: 1 })
  client.send('{')
  client.send({ type: 'ping', ref: 'p' })
  client.send(Buffer.from('binary'))
  client.send({ type: 'message', data: 2, ref: 'm' })
  await sleep(50)
  t.same(client.received, [], 'no frame before the commit of the join')
  door.open()
  const types = []
  while (types.length < 8) {
    const frame = await client.next()
    types.push(frame.type === 'message' ? frame.data : frame.type === 'ack' ? frame.ref : frame.type)
  }
  t.same(types, ['hello', 'presence', 1, 'error', 'p', 'error', 2, 'm'])
})

t.test('a join is invisible to other members before its hello, and visible to all after it', async t => {
  const door = gate()
  const { rooms, url } = await serve(t, { onJoin: (_session, request) => (request.query as any).presence === '1' ? door.closed : undefined })
  const other = await join(t, `${url}/rooms/news`)
  await other.next('presence')
  const late = await connect(t, `${url}/rooms/news?presence=1`)
  await until(() => rooms.stats().connections === 2)
  const { id, local } = await rooms.broadcast('news', 'before')
  t.equal(local, 1)
  t.equal(await rooms.count('news'), 1)
  t.same((await rooms.members('news')).map(({ session }: any) => session), [other.hello.session])
  door.open()
  const hello = await late.next('hello')
  t.equal(hello.id, id, 'the next position follows the one in hello')
  await rooms.broadcast('news', 'after')
  t.match(await late.next('message'), { data: 'after' })
  t.same((await other.next('presence')).join, [{ session: hello.session }])
})

t.test('messages that a slow onJoin sends follow hello, then come the snapshot and live frames', async t => {
  const { rooms, url } = await serve(t, {
    onJoin: async session => {
      await session.send('one')
      await sleep(50)
      await session.send('two')
    }
  })
  const client = await connect(t, `${url}/rooms/news?presence=1`)
  await until(async () => await rooms.count('news') === 1)
  await rooms.broadcast('news', 'three')
  const seen: unknown[] = []
  while (!seen.includes('three')) {
    const frame = await client.next()
    seen.push('data' in frame ? frame.data : frame.type === 'presence' ? Object.keys(frame)[2] : frame.type)
  }
  t.same(seen, ['hello', 'one', 'two', 'state', 'join', 'three'])
})

t.test('a refusal before hello is a close code, and no other member saw the join', async t => {
  const answers: Record<string, unknown> = {
    false: () => false,
    plain: () => { throw new Error('inner text') },
    unauthorized: () => { throw Object.assign(new Error('who?'), { statusCode: 401 }) },
    missing: () => { throw Object.assign(new Error('where?'), { statusCode: 404 }) },
    limited: async () => { throw Object.assign(new Error('slowly'), { statusCode: 429 }) },
    teapot: async () => { throw Object.assign(new Error('tea'), { statusCode: 418 }) },
    closed: (session: any) => { session.close(4999, 'own words') }
  }
  const errors: string[] = []
  const { rooms, url } = await serve(t, {
    onJoin: (session, request) => (answers as any)[String((request.headers as any)['x-case'])]?.(session),
    onError: error => { errors.push(error.message) }
  })
  const other = await join(t, `${url}/rooms/news`)
  await other.next('presence')
  const expected = { false: 4003, plain: 4003, unauthorized: 4001, missing: 4004, limited: 4101, teapot: 4003, closed: 4999 }
  for (const [name, code] of Object.entries(expected)) {
    const client = await connect(t, `${url}/rooms/news`, [], { headers: { 'x-case': name } })
    t.match(await client.closed, { code }, name)
    t.equal(client.received.length, 1)
    t.match(JSON.parse(client.received[0]!), { type: 'bye', code }, 'bye comes, and no hello')
    t.notMatch(client.received[0], 'inner text')
    t.notMatch(client.received[0], '"id"')
  }
  t.same(errors, ['inner text'], 'a refusal is not an error of a hook, a throw is')
  t.equal(rooms.stats().refused, Object.keys(expected).length)
  t.equal(await rooms.count('news'), 1)
  await sleep(150)
  t.equal(other.received.length, 2, 'the other member got hello and its own presence only')
})

t.test('positions grow by one, and all members get the same bytes of a message', async t => {
  const { rooms, url } = await serve(t)
  const clients = await Promise.all([1, 2, 3].map(() => join(t, `${url}/rooms/news`)))
  const ids = []
  for (const data of [{ b: 1, a: 'ü' }, [1], null]) ids.push((await rooms.broadcast('news', data)).id)
  const [epoch] = clients[0]!.hello.id!.split('-')
  t.same(ids, [`${epoch}-1`, `${epoch}-2`, `${epoch}-3`])
  const texts = await Promise.all(clients.map(async client => {
    await until(() => client.received.filter(text => text.includes('"message"')).length === 3)
    return client.received.filter(text => text.includes('"message"'))
  }))
  t.equal(texts[0]![0], `{"type":"message","id":"${epoch}-1","data":{"b":1,"a":"ü"}}`)
  t.same(texts[1], texts[0])
  t.same(texts[2], texts[0])
})

t.test('members of a message frame come in the order type, id, data, from, user', async t => {
  const { url } = await serve(t, { identify: () => ({ user: 'ann' }) })
  const client = await join(t, `${url}/rooms/news`)
  client.send({ ref: 1, data: 'hi', type: 'message', unknown: true })
  await client.next('ack')
  const message = client.received.find(text => text.includes('"message"'))
  const { id, session } = client.hello
  t.equal(message, `{"type":"message","id":"${id!.replace(/0$/, '1')}","data":"hi","from":"${session}","user":"ann"}`)
})

t.test('the echo of a message is sent before its ack, with the same position', async t => {
  const { url } = await serve(t)
  const client = await join(t, `${url}/rooms/news`)
  await client.next('presence')
  client.send({ type: 'message', data: 1, ref: 7 })
  const echo = await client.next()
  const ack = await client.next()
  t.match(echo, { type: 'message', data: 1 })
  t.same(ack, { type: 'ack', ref: 7, ok: true, id: (echo as any).id })
})

t.test('all members of a topic get its messages in one order', async t => {
  const { rooms, url } = await serve(t)
  const clients = await Promise.all([1, 2, 3].map(() => join(t, `${url}/rooms/news`)))
  for (let i = 0; i < 20; i++) {
    for (const client of clients) client.send({ type: 'message', data: i })
    await rooms.broadcast('news', i)
  }
  const orders = await Promise.all(clients.map(async client => {
    const order: string[] = []
    while (order.length < 80) {
      const { id, from = 'server', data } = await client.next('message')
      order.push(`${id} ${from} ${data}`)
    }
    return order
  }))
  t.same(orders[1], orders[0])
  t.same(orders[2], orders[0])
  for (const client of clients) {
    const own = orders[0]!.filter(line => line.includes(client.hello.session)).map(line => Number(line.split(' ')[2]))
    t.same(own, [...Array(20).keys()], 'the order of each publisher is kept')
  }
})

t.test('frames to one member are sent in the order of the calls', async t => {
  const { rooms, url } = await serve(t)
  const client = await join(t, `${url}/rooms/news`)
  const { session } = client.hello
  await client.next('presence')
  const calls = [
    rooms.broadcast('news', 1),
    rooms.send(session, 2),
    rooms.broadcast('news', 3),
    rooms.send(session, 4),
    rooms.kick({ session })
  ]
  await Promise.all(calls)
  const seen = []
  for (let i = 0; i < 5; i++) seen.push(await client.next())
  t.match(seen, [{ type: 'message', data: 1 }, { type: 'direct', data: 2 }, { type: 'message', data: 3 }, { type: 'direct', data: 4 }, { type: 'bye', code: 4005 }])
})

t.test('a ping with a ref is answered, one without is not', async t => {
  const { url } = await serve(t)
  const client = await join(t, `${url}/rooms/news`)
  await client.next('presence')
  client.send({ type: 'ping' })
  client.send({ type: 'ping', ref: 1 })
  client.send({ type: 'ping', ref: 'two' })
  t.same([await client.next(), await client.next()], [{ type: 'ack', ref: 1, ok: true }, { type: 'ack', ref: 'two', ok: true }])
})

t.test('pings and answers do not wait for unfinished messages', async t => {
  const door = gate()
  const { rooms, url } = await serve(t, { onMessage: { '*': () => door.closed } })
  const client = await join(t, `${url}/rooms/news`)
  client.send({ type: 'message', data: 1, ref: 'm' })
  client.send({ type: 'ping', ref: 'p' })
  t.match(await client.next('ack'), { ref: 'p' })
  const answer = rooms.ask(client.hello.session, 'what?')
  const { ref } = await client.next('direct')
  client.send({ type: 'ack', ref, data: 'that' })
  t.equal(await answer, 'that')
  door.open()
  t.match(await client.next('ack'), { ref: 'm', ok: true })
})

t.test('an answer is accepted only from the session that was asked', async t => {
  const { rooms, url } = await serve(t)
  const [asked, other] = [await join(t, `${url}/rooms/news`), await join(t, `${url}/rooms/news`)]
  const answer = rooms.ask(asked.hello.session, 'what?')
  const { ref } = await asked.next('direct')
  other.send({ type: 'ack', ref, data: 'mine' })
  t.match(await other.ask({ type: 'ping' }), { ok: true })
  asked.send({ type: 'ack', ref, data: 'that' })
  t.equal(await answer, 'that')
})

t.test('since is recovered if no message was published meanwhile, and not otherwise', async t => {
  const { rooms, url } = await serve(t)
  const keeper = await join(t, `${url}/rooms/news`)
  const { id } = await rooms.broadcast('news', 1)
  const same = await join(t, `${url}/rooms/news?since=${id}`)
  t.match(same.hello, { id, recovered: true, replayed: 0 })
  t.match((await join(t, `${url}/rooms/news?since=${keeper.hello.id}`)).hello, { id, recovered: false, replayed: 0 }, 'the member missed a message')
  await rooms.broadcast('news', 2)
  t.match(await same.next('message'), { data: 2 }, 'the next position follows')
  for (const since of [id, `${'0'.repeat(16)}-2`, id!.replace(/1$/, '99'), id!.replace(/1$/, '02')]) {
    t.match((await join(t, `${url}/rooms/news?since=${since}`)).hello, { recovered: false, replayed: 0 }, since)
  }
})

t.test('since of an earlier epoch of the topic is not recovered', async t => {
  const { rooms, url } = await serve(t)
  const first = await join(t, `${url}/rooms/news`)
  await first.close()
  await until(() => rooms.stats().topics === 0)
  const { hello } = await join(t, `${url}/rooms/news?since=${first.hello.id}`)
  t.not(hello.id, first.hello.id)
  t.match(hello, { recovered: false, replayed: 0 })
})

t.test('since=0 and since=latest carry replayed only, and a join without since carries neither', async t => {
  const { url } = await serve(t)
  for (const since of ['0', 'latest']) {
    const { hello } = await join(t, `${url}/rooms/news?since=${since}`)
    t.equal(hello.replayed, 0)
    t.notOk('recovered' in hello)
  }
  const { hello } = await join(t, `${url}/rooms/news`)
  t.notOk('recovered' in hello || 'replayed' in hello)
})

t.test('raw mode closes with 4202 if since cannot be recovered', async t => {
  const { rooms, url } = await serve(t)
  const keeper = await join(t, `${url}/rooms/news`)
  const { id } = await rooms.broadcast('news', 1)
  const unmet = await connect(t, `${url}/rooms/news?since=${keeper.hello.id}`, 'rooms.raw')
  t.same(await unmet.closed, { code: 4202, reason: 'position_lost' })
  t.same(unmet.received, [])
  const met = await connect(t, `${url}/rooms/news?since=${id}`, 'rooms.raw')
  const any = await connect(t, `${url}/rooms/news?since=0`, 'rooms.raw')
  await until(async () => await rooms.count('news') === 3)
  await rooms.broadcast('news', 2)
  t.same([await met.text(), await any.text()], ['2', '2'])
})

t.test('with a broker without positions frames have no id, and nothing is recovered', async t => {
  const handlers: any = {}
  const broker: any = {
    capabilities: { order: 'total', history: false, presence: true, once: 'shared' },
    async start (_node: string, given: object) {
      Object.assign(handlers, given)
      handlers.state('up')
    },
    async attach (topics: string[]) { return topics.map(() => null) },
    async detach () {},
    publish (batch: any[]) {
      for (const publication of batch) handlers.entry(publication.topic, publication)
      return batch.map(() => ({ state: 'ok' }))
    },
    async control () { return 'gone' },
    async close () {}
  }
  const { rooms, url } = await serve(t, { broker })
  const client = await join(t, `${url}/rooms/news?since=0123456789abcdef-1`)
  t.notOk('id' in client.hello)
  t.match(client.hello, { recovered: false, replayed: 0 })
  t.notOk('id' in await rooms.broadcast('news', 1))
  t.same(await client.next('message'), { type: 'message', data: 1 })
  await rooms.kick({ session: client.hello.session })
  t.notOk('id' in await client.next('bye'))
})

t.test('a session id is a name and no permission: members cannot kick', async t => {
  const { url } = await serve(t)
  const [one, two] = [await join(t, `${url}/rooms/news`), await join(t, `${url}/rooms/news`)]
  t.match(await one.ask({ type: 'leave', session: two.hello.session }), { ok: false, error: { code: 'FST_ROOMS_BAD_FRAME' } })
  t.match(await two.ask({ type: 'ping' }), { ok: true })
})
