import fastifyWebsocket from '@fastify/websocket'
import { Type } from '@sinclair/typebox'
import t, { type Test } from 'tap'
import type { PerMessageDeflateOptions } from 'ws'
import fastifyRooms from '../lib/index.ts'
import { connect, createApp, createRooms, join, listen, until } from './helpers/app.ts'
import { compressedClientFrame, joinMute } from './helpers/wire.ts'

const large = { text: 'the same again and '.repeat(100) }
const offer = 'sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n'

async function serve (t: Test, perMessageDeflate: boolean | PerMessageDeflateOptions = true, more: object = {}) {
  const app = await createRooms(t, { topics: { news: { message: Type.Object({ text: Type.String() }), publish: true } }, heartbeat: false, websocket: { options: { perMessageDeflate } }, ...more })
  return { app, url: await listen(app) }
}

/** Joins as a hand-made client with this offer: the answer to the offer, and the bytes that follow hello. */
async function member (t: Test, url: string, extensions: string) {
  const peer = await joinMute(t, `${url}/rooms/news`, extensions)
  await until(() => peer.text().includes('"hello"'))
  const start = peer.text().length
  return { ...peer, extensions: /^sec-websocket-extensions: (.*)$/im.exec(peer.handshake())?.[1], after: () => peer.text().slice(start) }
}

t.test('members without context takeover share one compressed frame, others get the plain frame, as each negotiated', async t => {
  const { app, url } = await serve(t)
  const [usual, twin, small, none] = [await member(t, url, offer), await member(t, url, offer), await member(t, url, 'sec-websocket-extensions: permessage-deflate; server_max_window_bits=10\r\n'), await member(t, url, '')]
  t.equal(usual.extensions, 'permessage-deflate; server_no_context_takeover')
  t.match(small.extensions, /server_max_window_bits=10/)
  t.equal(none.extensions, undefined)
  await app.rooms.broadcast('news', large)
  await until(() => [usual, twin, small, none].every(({ after }) => after() !== ''))
  t.equal(usual.after().charCodeAt(0), 0xc1)
  t.equal(usual.after(), twin.after())
  t.ok(usual.after().length < 200)
  t.equal(small.after().charCodeAt(0), 0x81)
  t.ok(small.after().includes(large.text))
  t.equal(small.after(), none.after())
})

t.test('short messages, and messages to a single member, are not compressed', async t => {
  const { app, url } = await serve(t)
  const peer = await member(t, url, offer)
  await app.rooms.broadcast('news', { text: 'short' })
  await until(() => peer.after().includes('short'))
  const [{ session }] = await app.rooms.members('news') as [{ session: string }]
  await app.rooms.send(session, large)
  await until(() => peer.after().includes(large.text))
  t.equal(peer.after().charCodeAt(0), 0x81)
})

t.test('compressed, plain and private messages of one turn keep their order', async t => {
  for (const mode of ['rooms.v1', 'rooms.raw'] as const) {
    const { app, url } = await serve(t)
    const clients = [
      await connect(t, `${url}/rooms/news`, mode),
      await connect(t, `${url}/rooms/news`, mode, { perMessageDeflate: { serverMaxWindowBits: 10 } }),
      await connect(t, `${url}/rooms/news`, mode, { perMessageDeflate: false })
    ]
    t.same(clients.map(({ socket }) => socket.extensions), ['permessage-deflate', 'permessage-deflate', ''])
    await until(async () => await app.rooms.count('news') === 3)
    const members = await app.rooms.members('news')
    const texts: string[] = []
    const say = (text: string): void => {
      texts.push(text)
      app.rooms.broadcast('news', { text })
    }
    for (let n = 0; n < 40; n++) {
      say(`${n}${'x'.repeat([0, 2_000, 66_000][n % 3]!)}`)
      if (n % 7 > 0) continue
      const text = `private ${n} ${'y'.repeat(n * 100)}`
      texts.push(text)
      for (const { session } of members) app.rooms.send(session, { text })
    }
    const textOf = (frame: string): string | undefined => mode === 'rooms.raw' ? JSON.parse(frame).text : JSON.parse(frame).data?.text
    await until(() => clients.every(({ received }) => received.map(textOf).filter(Boolean).length === texts.length))
    for (const { received } of clients) t.same(received.map(textOf).filter(Boolean), texts)
  }
})

t.test('compressed messages of members are read, and the close of the sender comes after them', async t => {
  const { url } = await serve(t, { threshold: 0 })
  const [sender, other] = [await join(t, `${url}/rooms/news`, { perMessageDeflate: { threshold: 0 } }), await join(t, `${url}/rooms/news`)]
  for (let n = 0; n < 20; n++) sender.send({ type: 'message', data: { text: `${n} ${large.text}` } })
  sender.socket.close(4444)
  await sender.closed
  await until(() => other.received.filter(text => text.includes('"message"')).length === 20)
  t.same(other.received.filter(text => text.includes('"message"')).map(text => JSON.parse(text).data.text), Array.from({ length: 20 }, (_, n) => `${n} ${large.text}`))
})

t.test('messages are compressed only with serverNoContextTakeover, also in the host\'s own @fastify/websocket', async t => {
  const kept = await serve(t, { serverNoContextTakeover: false })
  const peer = await member(t, kept.url, offer)
  t.equal(peer.extensions, 'permessage-deflate')
  await kept.app.rooms.broadcast('news', large)
  await until(() => peer.after().includes(large.text))

  for (const [perMessageDeflate, first] of [[true, 0x81], [{ serverNoContextTakeover: true }, 0xc1], [false, 0x81]] as const) {
    const app = createApp(t)
    await app.register(fastifyWebsocket, { options: { perMessageDeflate } })
    await app.register(fastifyRooms, { prefix: '/rooms', heartbeat: false })
    const peer = await member(t, await listen(app), offer)
    t.equal(peer.extensions?.startsWith('permessage-deflate') ?? false, perMessageDeflate !== false)
    await app.rooms.broadcast('news', large)
    await until(() => peer.after() !== '')
    t.equal(peer.after().charCodeAt(0), first)
  }
})

t.test('while reading from a member is paused, frames that it sent are not inflated; afterwards all of them are', async t => {
  for (const when of ['before hello', 'behind unfinished messages']) {
    let open = (): void => {}
    const door = new Promise<void>(resolve => { open = resolve })
    const taken: string[] = []
    const { app, url } = await serve(t, true, {
      limits: { pending: 2 },
      onJoin: () => when === 'before hello' ? door : undefined,
      onMessage: {
        news: async (_session: unknown, { text }: { text: string }) => {
          if (when !== 'before hello') await door
          taken.push(text.split(' ')[0]!)
        }
      }
    })
    const stats = () => (app.rooms as any).stats()
    const peer = await joinMute(t, `${url}/rooms/news`, offer)
    if (when !== 'before hello') await until(() => peer.text().includes('"hello"'))
    const frames = Array.from({ length: 100 }, (_, n) => compressedClientFrame(JSON.stringify({ type: 'message', data: { text: `${n} ${'a'.repeat(50_000)}` } })))
    peer.socket.write(Buffer.concat(frames))
    await until(() => stats().paused === 1)
    await new Promise(resolve => setTimeout(resolve, 300))
    t.ok(stats().received <= 3, when)
    peer.send(8, Buffer.of(0x03, 0xe8))
    open()
    await until(() => taken.length === 100)
    t.same(taken, Array.from({ length: 100 }, (_, n) => String(n)), when)
  }
})

t.test('a connection that breaks or is ended while its frames wait to be inflated leaves no state behind', async t => {
  const left: number[] = []
  const { app, url } = await serve(t, true, { limits: { pending: 2 }, onMessage: { news: () => new Promise(() => {}) }, onLeave: (_session: unknown, { code }: { code: number }) => { left.push(code) } })
  const stats = () => (app.rooms as any).stats()
  for (const ends of ['breaks', 'is ended']) {
    const peer = await member(t, url, offer)
    const frame = compressedClientFrame(JSON.stringify({ type: 'message', data: { text: 'a'.repeat(50_000) } }))
    const before = stats().paused
    peer.socket.write(Buffer.concat(Array.from({ length: 100 }, () => frame)))
    await until(() => stats().paused === before + 1)
    await new Promise(resolve => setTimeout(resolve, 100))
    if (ends === 'breaks') {
      peer.socket.resetAndDestroy()
      await until(async () => {
        await app.rooms.broadcast('news', large)
        return stats().connections === 0
      })
    } else {
      await app.rooms.kick({ topic: 'news' })
      peer.socket.end()
    }
    await until(() => stats().connections === 0)
  }
  t.same(left, [4005], 'a broken connection stays until its messages are handled')
})

t.test('options that zlib refuses are refused at registration', async t => {
  const app = createApp(t)
  await t.rejects(async () => { await app.register(fastifyRooms, { websocket: { options: { perMessageDeflate: { zlibDeflateOptions: { level: 99 } } } } }) }, { code: 'ERR_OUT_OF_RANGE' })
})
