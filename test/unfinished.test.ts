import fastifyWebsocket from '@fastify/websocket'
import t, { type Test } from 'tap'
import { WebSocket } from 'ws'
import fastifyRooms from '../lib/index.ts'
import { createApp, join, listen, until, type AnyOptions, type LogLine } from './helpers/app.ts'
import { clientFrame, joinMute, type MutePeer } from './helpers/wire.ts'

const plugin = fastifyRooms as any

/** Milliseconds that a message may take in these tests. */
const unfinished = 400

async function serve (t: Test, options: AnyOptions, hosted = false, logs: LogLine[] = []) {
  const left: { code: number, reason: string }[] = []
  const app = createApp(t, {}, logs)
  if (hosted) await app.register(fastifyWebsocket)
  await app.register(plugin, { prefix: '/rooms', onLeave: (_session: unknown, reason: { code: number, reason: string }) => { left.push(reason) }, ...options })
  return { app, left, url: `${await listen(app)}/rooms/news` }
}

/** The close frame of a server. */
function closeFrame (code: number, reason = ''): string {
  return Buffer.concat([Buffer.of(0x88, 2 + reason.length, code >> 8, code & 0xff), Buffer.from(reason)]).toString('latin1')
}

/** Sends bytes every 20 milliseconds until the connection has ended. */
function every (t: Test, peer: MutePeer, next: (n: number) => Buffer | string): void {
  let n = 0
  const timer = setInterval(() => { if (peer.socket.writable) peer.socket.write(next(n++)) }, 20)
  t.teardown(() => { clearInterval(timer) })
}

const part = Buffer.of(0x01, 0x80 | 3, 0, 0, 0, 0, 0x61, 0x61, 0x61)

for (const hosted of [false, true]) {
  for (const heartbeat of [false, { interval: 300, timeout: 300 }] as const) {
    t.test(`issue 8: a message that does not end within limits.unfinished ends with 1008${hosted ? ', with the @fastify/websocket of the host' : ''}${heartbeat === false ? ', without a heartbeat' : ''}`, async t => {
      const { app, left, url } = await serve(t, { heartbeat, limits: { unfinished } }, hosted)
      const steady = await join(t, url)
      const bytes = await joinMute(t, url)
      const fragments = await joinMute(t, url)
      const pings = await joinMute(t, url)
      bytes.socket.write(Buffer.of(0x81, 0x80 | 126, 0x10, 0, 0, 0, 0, 0))
      every(t, bytes, () => 'a')
      fragments.socket.write(part)
      every(t, fragments, n => Buffer.of(0, 0x80, 0, 0, 0, n & 0xff))
      pings.socket.write(part)
      every(t, pings, () => clientFrame(9, 'x'))
      const begun = performance.now()
      while (left.length < 3) {
        const data = performance.now() - begun
        t.match(await steady.ask({ type: 'message', data }), { ok: true })
      }
      t.same(left, Array(3).fill({ code: 1008, reason: 'unfinished' }))
      for (const peer of [bytes, fragments, pings]) await until(() => peer.text().endsWith(closeFrame(1008, 'unfinished')))
      t.match(app.rooms.stats(), { members: 1, invalid: 0, silent: 0, refusals: { unfinished: 3, protocol: 0 } })
    })
  }

  t.test(`issue 8: a frame of more than twice the largest payload limit ends with 1009 before it is read${hosted ? ', with the @fastify/websocket of the host' : ''}`, async t => {
    const { left, url } = await serve(t, { limits: { payload: 1_000 } }, hosted)
    const peer = await joinMute(t, url)
    peer.socket.write(Buffer.of(0x81, 0x80 | 126, 2_001 >> 8, 2_001 & 0xff))
    await until(() => left.length === 1)
    t.match(left, [{ code: 1009 }])
    await until(() => peer.text().endsWith(closeFrame(1009)))
  })
}

t.test('a peer whose message does not end before hello is refused', async t => {
  const { app, left, url } = await serve(t, { onJoin: () => new Promise(() => {}), limits: { unfinished } })
  const peer = await joinMute(t, url)
  peer.socket.write(part)
  await until(() => peer.text().endsWith(closeFrame(1008, 'unfinished')))
  t.match(app.rooms.stats(), { refused: 1, refusals: { unfinished: 1, other: 0 } })
  t.same(left, [])
})

t.test('a member that sends small messages in pieces, slowly and for longer than limits.unfinished, stays connected', async t => {
  const { left, url } = await serve(t, { limits: { unfinished: 2_000 } })
  const peer = await joinMute(t, url)
  const begun = performance.now()
  let sent = 0
  // Each write leaves a message without its end.
  let rest: Buffer = Buffer.alloc(0)
  while (performance.now() - begun < 5_000) {
    const frame = clientFrame(1, JSON.stringify({ type: 'message', data: ++sent }))
    peer.socket.write(Buffer.concat([rest, frame.subarray(0, 5)]))
    rest = frame.subarray(5)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  peer.socket.write(rest)
  await until(() => peer.text().includes(`"data":${sent}`))
  t.same(left, [])
})

t.test('members join and talk with a ws of unknown internals, which is logged once', async t => {
  class Unknown extends WebSocket {
    setSocket (...args: unknown[]): void {
      (Object.getPrototypeOf(Unknown.prototype) as { setSocket (...args: unknown[]): void }).setSocket.apply(this, args)
      Reflect.deleteProperty((this as unknown as { _receiver: object })._receiver, '_messageLength')
    }
  }
  const logs: LogLine[] = []
  const { app, left, url } = await serve(t, { websocket: { options: { WebSocket: Unknown as never } }, limits: { unfinished } }, false, logs)
  const [one, two] = [await join(t, url), await join(t, url)]
  t.match(await one.ask({ type: 'message', data: 1 }), { ok: true })
  t.match(await two.next('message'), { data: 1 })
  const peer = await joinMute(t, url)
  peer.socket.write(part)
  await new Promise(resolve => setTimeout(resolve, unfinished * 2))
  t.same(left, [], 'messages are not timed')
  t.equal(app.rooms.stats().members, 3)
  t.equal(logs.filter(({ msg, level }) => level === 40 && msg.startsWith('the receiver of this ws is unknown')).length, 1)
})

t.test('issue 8: pings in pieces, each of which ends in time, do not count as one unfinished frame', async t => {
  const { left, url } = await serve(t, { limits: { unfinished } })
  const peer = await joinMute(t, url)
  const ping = clientFrame(9, 'abcdef')
  peer.socket.write(ping.subarray(0, 3))
  const begun = performance.now()
  while (performance.now() - begun < 4 * unfinished) {
    await new Promise(resolve => setTimeout(resolve, unfinished / 4))
    peer.socket.write(Buffer.concat([ping.subarray(3), ping.subarray(0, 3)]))
  }
  t.same(left, [])
  const pong = clientFrame(10, 'abcdef')
  peer.socket.write(Buffer.concat([ping.subarray(3), pong.subarray(0, 3)]))
  for (let n = 0; n < 8; n++) {
    await new Promise(resolve => setTimeout(resolve, unfinished / 4))
    peer.socket.write(Buffer.concat([pong.subarray(3), pong.subarray(0, 3)]))
  }
  t.same(left, [])
})
