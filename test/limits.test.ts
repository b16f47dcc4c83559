import { once } from 'node:events'
import t, { type Test } from 'tap'
import { connect, createRooms, join, listen, until, type AnyOptions } from './helpers/app.ts'

const sleep = (milliseconds: number) => new Promise(resolve => setTimeout(resolve, milliseconds))
const turn = () => new Promise(resolve => setImmediate(resolve))

async function serve (t: Test, options: AnyOptions = {}) {
  const left: any[] = []
  const app = await createRooms(t, { onLeave: (session, reason) => { left.push([session.id, reason]) }, ...options })
  return { app, rooms: app.rooms as any, url: await listen(app), left }
}

t.test('a join over limits.connections is closed with 4104 until another connection has closed', async t => {
  const { rooms, url, left } = await serve(t, { limits: { connections: 2 } })
  const one = await join(t, `${url}/rooms/a`)
  const two = await join(t, `${url}/rooms/b`)
  const third = await connect(t, `${url}/rooms/a`)
  t.same(await third.closed, { code: 4104, reason: 'connection_limit' })
  t.same(third.received.map(text => JSON.parse(text)), [{ type: 'bye', code: 4104, reason: 'connection_limit', retry: { min: 1_000, max: 20_000 } }])
  t.match(rooms.stats(), { refused: 1, members: 2 })
  await two.close()
  await until(() => rooms.stats().connections === 1)
  await join(t, `${url}/rooms/b`)
  t.equal(left.length, 1, 'a refused join does not count as a member')
  t.match(await one.ask({ type: 'ping' }), { ok: true })
})

t.test('over limits.topics a join to a new room is closed with 4100, and a join to an existing room is not', async t => {
  const { rooms, url } = await serve(t, { limits: { topics: 1 } })
  const one = await join(t, `${url}/rooms/a`)
  const other = await connect(t, `${url}/rooms/b`)
  t.same(await other.closed, { code: 4100, reason: 'overloaded' })
  await join(t, `${url}/rooms/a`)
  t.match(rooms.stats(), { refused: 1, topics: 1 })
  t.same(await rooms.topics(), ['a'])
  t.match(await one.ask({ type: 'ping' }), { ok: true })
})

t.test('a join over the members of a topic is closed with 4102; joins under way count', async t => {
  let open = (): void => {}
  const { rooms, url } = await serve(t, {
    topics: { 'duel:*': { limits: { members: 2 } }, open: {} },
    onJoin: (_session, request) => request.headers['x-wait'] === undefined || new Promise<void>(resolve => { open = resolve })
  })
  await join(t, `${url}/rooms/duel:1`)
  const joining = await connect(t, `${url}/rooms/duel:1`, [], { headers: { 'x-wait': '1' } })
  await until(() => rooms.stats().connections === 2)
  const third = await connect(t, `${url}/rooms/duel:1`)
  t.same(await third.closed, { code: 4102, reason: 'room_full' })
  await join(t, `${url}/rooms/duel:2`)
  await join(t, `${url}/rooms/open`)
  open()
  await joining.next('hello')
  t.equal(await rooms.count('duel:1'), 2)
  await joining.close()
  await until(async () => await rooms.count('duel:1') === 1)
  await join(t, `${url}/rooms/duel:1`)
})

t.test('a raw join over a limit is closed with the same code, without a frame', async t => {
  const { url } = await serve(t, { limits: { connections: 1 } })
  await join(t, `${url}/rooms/a`)
  const raw = await connect(t, `${url}/rooms/a`, 'rooms.raw')
  t.same(await raw.closed, { code: 4104, reason: 'connection_limit' })
  t.same(raw.received, [])
})

t.test('each topic has its own payload limit', async t => {
  const { url } = await serve(t, { topics: { small: { publish: true, limits: { payload: 60 } }, large: { publish: true, limits: { payload: 200_000 } }, plain: { publish: true } }, limits: { payload: 100 } })
  const message = (length: number) => ({ type: 'message', data: 'x'.repeat(length) })
  for (const [topic, fits, over] of [['small', 10, 70], ['plain', 50, 110], ['large', 150_000, 200_000]] as const) {
    const client = await join(t, `${url}/rooms/${topic}`)
    client.send(message(fits))
    t.equal(((await client.next('message')).data as string).length, fits)
    client.send(message(over))
    t.match(await client.next('error'), { error: { code: 'FST_ROOMS_FRAME_TOO_LARGE' } }, topic)
  }
})

t.test('reading pauses at the bound of unfinished messages; order is kept, no message is lost, and other members go on', async t => {
  const doors: (() => void)[] = []
  let running = 0
  let most = 0
  const done: number[] = []
  const { rooms, url } = await serve(t, {
    limits: { pending: 4 },
    onMessage: {
      '*': async (_session, { n }) => {
        if (n === -1) return 'other'
        most = Math.max(most, ++running)
        if (n === 0) await new Promise<void>(resolve => { doors.push(resolve) })
        else await turn()
        running--
        done.push(n)
      }
    }
  })
  const client = await join(t, `${url}/rooms/news`)
  const other = await join(t, `${url}/rooms/news`)
  const count = 300
  for (let n = 0; n < count; n++) client.send({ type: 'message', ref: n, data: { n, fill: 'x'.repeat(10_000) } })
  await until(() => doors.length === 1)
  for (let i = 0; i < 10; i++) t.match(await other.ask({ type: 'message', data: { n: -1 } }), { ok: true, data: 'other' })
  const { received } = rooms.stats()
  t.ok(received - 10 < 30, `${received - 10} frames of ${count} were received: the bound, and frames of reads that were complete already`)
  t.same(done, [])
  doors[0]!()
  await until(() => done.length === count)
  t.same(done, [...Array(count).keys()])
  t.equal(most, 1, 'messages of one member are handled one at a time')
  for (let n = 0; n < count; n++) t.equal((await client.next('ack')).ref, n)
})

t.test('frames before hello have the same bound', async t => {
  let open = (): void => {}
  const seen: number[] = []
  const { rooms, url } = await serve(t, {
    limits: { pending: 4 },
    onJoin: () => new Promise<void>(resolve => { open = resolve }),
    onMessage: { '*': (_session, { n }) => { seen.push(n) } }
  })
  const client = await connect(t, `${url}/rooms/news`)
  const count = 300
  const wrote = once(client.socket, 'message')
  for (let n = 0; n < count; n++) client.send({ type: 'message', data: { n, fill: 'x'.repeat(10_000) } })
  await until(() => rooms.stats().connections === 1)
  await sleep(50)
  t.equal(rooms.stats().received, 0)
  open()
  await wrote
  await until(() => seen.length === count)
  t.same(seen, [...Array(count).keys()])
})

t.test('an onJoin that never settles ends the join with 4100, and one that settles too late is followed by onLeave', async t => {
  let late = (): void => {}
  const { rooms, url, left } = await serve(t, {
    limits: { handshake: 500 },
    onJoin: session => session.topic === 'news' || new Promise<void>(resolve => { late = resolve })
  })
  const other = await join(t, `${url}/rooms/news`)
  const client = await connect(t, `${url}/rooms/slow`)
  t.same(await client.closed, { code: 4100, reason: 'overloaded' })
  t.match(client.received.map(text => JSON.parse(text)), [{ type: 'bye', code: 4100 }])
  t.equal(client.received.length, 1)
  await until(() => rooms.stats().connections === 1)
  t.match(rooms.stats(), { refused: 1, topics: 1, members: 1 })
  t.same(left, [])
  late()
  await until(() => left.length === 1)
  t.match(left, [[String, { code: 4100, reason: 'overloaded' }]], 'onLeave is called because onJoin accepted')
  t.match(await other.ask({ type: 'ping' }), { ok: true })
})

t.test('a member that does not read is closed with 4201, without delay for other members', async t => {
  const { rooms, url, left } = await serve(t, { slow: { bytes: 100_000 } })
  const slow = await join(t, `${url}/rooms/news`)
  const other = await join(t, `${url}/rooms/news`)
  slow.socket.pause()
  const fill = 'x'.repeat(200_000)
  let sent = 0
  const got: number[] = []
  while (rooms.stats().slow === 0 && sent < 500) {
    await rooms.broadcast('news', { n: sent++, fill })
    got.push((await other.next('message') as any).data.n)
  }
  t.equal(rooms.stats().slow, 1)
  t.same(left, [[slow.hello.session, { code: 4201, reason: 'slow' }]])
  t.equal(await rooms.count('news'), 1)
  const { local } = await rooms.broadcast('news', { n: sent++ })
  t.equal(local, 1)
  got.push((await other.next('message') as any).data.n)
  t.same(got, [...Array(sent).keys()])
  slow.socket.resume()
  t.same(await slow.closed, { code: 4201, reason: 'slow' })
  const frames = slow.received.map(text => JSON.parse(text))
  t.notOk(frames.some(({ type }) => type === 'bye'), 'a slow member gets no bye, because it would not read it')
  t.equal(frames.filter(({ type }) => type === 'message').length, sent - 2, 'the message over the bound and later ones are not buffered')
  await until(() => rooms.stats().connections === 1)
  t.equal(rooms.stats().queuedBytes, 0)
})

t.test('a member that does not read its private messages is closed with 4201', async t => {
  const { rooms, url } = await serve(t, { slow: { bytes: 100_000 } })
  const slow = await join(t, `${url}/rooms/news`)
  slow.socket.pause()
  const fill = 'x'.repeat(200_000)
  for (let i = 0; rooms.stats().slow === 0 && i < 500; i++) {
    rooms.send(slow.hello.session, fill).catch(() => {})
    await turn()
  }
  t.equal(rooms.stats().slow, 1)
  await t.rejects(rooms.send(slow.hello.session, 1), { code: 'FST_ROOMS_NO_SUCH_SESSION' })
})

t.test('an idle member accepts a burst in one turn, however large', async t => {
  const { rooms, url } = await serve(t, { slow: { bytes: 1_000 } })
  const member = await join(t, `${url}/rooms/news`)
  const fill = 'x'.repeat(100_000)
  for (let n = 0; n < 100; n++) rooms.broadcast('news', { n, fill })
  t.ok(rooms.stats().queuedBytes > 1_000, 'the burst exceeded the bound')
  for (let n = 0; n < 100; n++) t.equal((await member.next('message') as any).data.n, n)
  t.equal(rooms.stats().slow, 0)
})

t.test('several slow members in one fan-out are each ended once, even if onLeave broadcasts to the room', async t => {
  const { rooms, url } = await serve(t, {
    slow: { bytes: 100_000 },
    onLeave: session => { session.rooms.broadcast(session.topic, { left: session.id }) }
  })
  const slow = [await join(t, `${url}/rooms/news`), await join(t, `${url}/rooms/news`)]
  const other = await join(t, `${url}/rooms/news`)
  for (const { socket } of slow) socket.pause()
  const fill = 'x'.repeat(200_000)
  for (let i = 0; rooms.stats().slow < 2 && i < 500; i++) {
    await rooms.broadcast('news', fill)
    await turn()
  }
  t.equal(rooms.stats().slow, 2)
  const left = []
  while (left.length < 2) {
    const { data } = await other.next('message') as any
    if (data.left !== undefined) left.push(data.left)
  }
  t.same(left.sort(), slow.map(({ hello }) => hello.session).sort())
  await turn()
  t.equal(rooms.stats().slow, 2)
})
