import t, { type Test } from 'tap'
import { connect, createRooms, join, listen, until, type AnyOptions } from './helpers/app.ts'
import { joinMute } from './helpers/wire.ts'

const sleep = (milliseconds: number) => new Promise(resolve => setTimeout(resolve, milliseconds))
const heartbeat = { interval: 100, timeout: 100 }

async function serve (t: Test, options: AnyOptions = {}) {
  const left: { id: string, code: number, reason: string }[] = []
  const app = await createRooms(t, { heartbeat, onLeave: (session, reason) => { left.push({ id: session.id, ...reason }) }, ...options })
  return { app, rooms: app.rooms as any, url: await listen(app), left }
}

t.test('a peer that went mute leaves its room, and other members see it', async t => {
  const { rooms, url, left } = await serve(t)
  const other = await join(t, `${url}/rooms/news`)
  const peer = await joinMute(t, `${url}/rooms/news`)
  await until(async () => await rooms.count('news') === 2)
  const session = (await rooms.members('news')).map(({ session }: any) => session).find((id: string) => id !== other.hello.session)
  await until(() => rooms.stats().silent === 1)
  t.equal(await rooms.count('news'), 1)
  t.match(left, [{ id: session, code: 4203, reason: 'heartbeat' }])
  await until(() => other.received.some(text => text.includes('"leave"') && text.includes(session)))
  t.ok(peer.text().includes('\x89\x00'), 'the peer was pinged first')
  t.notOk(peer.text().includes('"bye"'), 'no bye was sent, because a mute peer would not read it')
  await until(() => rooms.stats().connections === 1)
  t.match(await other.ask({ type: 'ping' }), { ok: true })
})

t.test('a peer that only listens but answers pings stays', async t => {
  const { rooms, url } = await serve(t)
  const client = await join(t, `${url}/rooms/news`)
  let pings = 0
  client.socket.on('ping', () => { pings++ })
  await until(() => pings >= 5)
  t.equal(client.socket.readyState, client.socket.OPEN)
  t.match(rooms.stats(), { silent: 0, members: 1 })
})

t.test('a peer that ends its side without a close frame while bytes wait for it leaves its room with 1006, and is terminated', async t => {
  const { rooms, url, left } = await serve(t, { heartbeat: { interval: 25_000, timeout: 10_000 }, slow: { bytes: 100_000_000 } })
  const peer = await joinMute(t, `${url}/rooms/news`)
  await until(async () => await rooms.count('news') === 1)
  peer.socket.pause()
  while (rooms.stats().queuedBytes === 0) {
    await rooms.broadcast('news', 'x'.repeat(1_000_000))
    await sleep(1)
  }
  peer.socket.end()
  await until(() => left.length === 1)
  t.match(left, [{ code: 1006, reason: '' }])
  t.match(rooms.stats(), { members: 0, connections: 1 })
  await until(() => rooms.stats().connections === 0)
})

t.test('any byte shows life: a peer that sends but answers no ping stays', async t => {
  const { rooms, url } = await serve(t, { heartbeat: { interval: 200, timeout: 200 } })
  const peer = await joinMute(t, `${url}/rooms/news`)
  const speak = setInterval(() => { peer.send(1, '{"type":"ping"}') }, 20)
  t.teardown(() => { clearInterval(speak) })
  await sleep(1_200)
  t.match(rooms.stats(), { silent: 0, members: 1 })
  clearInterval(speak)
  await until(() => rooms.stats().silent === 1)
})

t.test('while the server does not read from a peer, silence does not count', async t => {
  let open = (): void => {}
  const { rooms, url } = await serve(t, {
    limits: { pending: 1 },
    onMessage: { '*': () => new Promise<void>(resolve => { open = resolve }) }
  })
  const peer = await joinMute(t, `${url}/rooms/news`)
  peer.send(1, '{"type":"message","data":1}')
  await until(() => rooms.stats().received === 1)
  await sleep(800)
  t.match(rooms.stats(), { silent: 0, members: 1 })
  open()
  await until(() => rooms.stats().silent === 1)
})

t.test('without a heartbeat a mute peer stays, and is not pinged', async t => {
  const { rooms, url } = await serve(t, { heartbeat: false })
  const peer = await joinMute(t, `${url}/rooms/news`)
  await until(async () => await rooms.count('news') === 1)
  await sleep(500)
  t.match(rooms.stats(), { silent: 0, members: 1 })
  t.notOk(peer.text().includes('\x89\x00'))
})

t.test('a stall of the process ends no member', async t => {
  const { rooms, url } = await serve(t)
  const clients = await Promise.all([1, 2, 3].map(() => join(t, `${url}/rooms/news`)))
  let pings = 0
  clients[0]!.socket.on('ping', () => { pings++ })
  for (let i = 0; i < 3; i++) {
    const before = pings
    await until(() => pings > before)
    // A check is running or due when the event loop stalls for longer than interval and timeout.
    await sleep(60 * i)
    const end = performance.now() + 400
    while (performance.now() < end);
  }
  await sleep(300)
  t.match(rooms.stats(), { silent: 0, members: 3 })
  for (const client of clients) t.match(await client.ask({ type: 'ping' }), { ok: true })
})

t.test('raw members have the same heartbeat', async t => {
  const { rooms, url } = await serve(t)
  await joinMute(t, `${url}/rooms/news`, 'sec-websocket-protocol: rooms.raw\r\n')
  const raw = await connect(t, `${url}/rooms/news`, 'rooms.raw')
  await until(() => rooms.stats().silent === 1)
  t.equal(await rooms.count('news'), 1)
  t.equal(raw.socket.readyState, raw.socket.OPEN)
})

t.test('a peer that sends a close but holds its connection open is no longer in its room', async t => {
  const { rooms, url, left } = await serve(t)
  const peer = await joinMute(t, `${url}/rooms/news`)
  await until(async () => await rooms.count('news') === 1)
  peer.socket.allowHalfOpen = true // the peer does not answer the end of the stream with its own
  peer.send(8, Buffer.from([0x0f, 0xa7, ...Buffer.from('enough')]))
  await until(async () => await rooms.count('news') === 0)
  t.match(left, [{ code: 4007, reason: 'enough' }])
  t.match(rooms.stats(), { silent: 0, connections: 1 })
  await until(() => rooms.stats().connections === 0)
})
