import fastifyWebsocket from '@fastify/websocket'
import t from 'tap'
import fastifyRooms from '../lib/index.ts'
import { createApp, createRooms, join, listen, until } from './helpers/app.ts'
import { clientFrame, joinMute } from './helpers/wire.ts'

const plugin = fastifyRooms as any

/** A message in many fragments (RFC 6455 5.4), without the last one. */
function fragments (count: number): Buffer {
  const [first, next] = [1, 0].map(opcode => {
    const frame = clientFrame(opcode, '1')
    frame[0]! &= 0x7f
    return frame
  }) as [Buffer, Buffer]
  return Buffer.concat([first, ...Array<Buffer>(count - 1).fill(next)])
}

for (const hosted of [false, true]) {
  t.test(`a message of 20,000 fragments ends with 1008, and no other member is affected${hosted ? ', if the host registered @fastify/websocket' : ''}`, async t => {
    const left: unknown[] = []
    const app = createApp(t)
    if (hosted) await app.register(fastifyWebsocket)
    await app.register(plugin, { prefix: '/rooms', onLeave: (_session: unknown, reason: unknown) => { left.push(reason) } })
    const url = await listen(app)
    const [ann, bob] = [await join(t, `${url}/rooms/news`), await join(t, `${url}/rooms/news`)]
    const hostile = await joinMute(t, `${url}/rooms/news`)
    hostile.socket.write(fragments(20_000))
    for (let n = 0; n < 20; n++) {
      t.match(await ann.ask({ type: 'message', data: n }), { ok: true })
      t.match(await bob.next('message'), { data: n })
    }
    await until(() => left.length === 1)
    t.match(left, [{ code: 1008 }])
    t.ok(hostile.text().endsWith(Buffer.of(0x88, 2, 1008 >> 8, 1008 & 0xff).toString('latin1')), 'the peer gets bye')
    t.equal(await app.rooms.count('news'), 2)
    t.match(app.rooms.stats(), { invalid: 1 })
  })
}

t.test('a message in a few fragments is one message', async t => {
  const app = await createRooms(t)
  const url = await listen(app)
  const member = await join(t, `${url}/rooms/news`)
  const pieces = ['{"type":', '"message",', '"data":1}']
  pieces.forEach((piece, index) => { member.socket.send(piece, { fin: index === pieces.length - 1 }) })
  t.match(await member.next('message'), { data: 1 })
})

t.test('a ws that does not bound fragments is refused at registration, unless the host lifted the bound itself', async t => {
  const refused = { code: 'FST_ROOMS_WEBSOCKET_TOO_OLD', message: /8\.23\.0 or newer/ }
  for (const name of ['maxFragments', 'maxBufferedChunks']) {
    await t.rejects(createRooms(t, { websocket: { options: { [name]: undefined } } }), refused)
    const app = createApp(t)
    await app.register(fastifyWebsocket)
    delete (app.websocketServer.options as Record<string, unknown>)[name] // as in an older ws
    await t.rejects(async () => { await app.register(plugin, { prefix: '/rooms' }) }, refused)
  }
  await createRooms(t, { websocket: { options: { maxFragments: 0 } } })
})
