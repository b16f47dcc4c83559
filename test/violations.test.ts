import { once } from 'node:events'
import t from 'tap'
import { createRooms, join, listen, until } from './helpers/app.ts'
import { clientFrame, compressedClientFrame as compressed, joinMute, type MutePeer } from './helpers/wire.ts'

const offer = 'sec-websocket-extensions: permessage-deflate\r\n'
/** An invalid close frame: 1005 is never sent. */
const violation = clientFrame(8, Buffer.of(0x03, 0xed))

/** Three chunks for the server; the last two arrive while the first is processed. */
async function writeBehind (peer: MutePeer, first: Buffer): Promise<void> {
  peer.socket.setNoDelay(true)
  for (const bytes of [first, violation, Buffer.from('any bytes')]) {
    peer.socket.write(bytes)
    await new Promise(resolve => setTimeout(resolve, 3))
  }
}

t.test('frames behind a violation end only their own connection, while messages are inflated', async t => {
  const left: number[] = []
  const app = await createRooms(t, { websocket: { options: { perMessageDeflate: true } }, onLeave: (_session, { code }) => { left.push(code) } })
  const url = await listen(app)
  const other = await join(t, `${url}/rooms/news`)
  const frame = compressed(JSON.stringify({ type: 'message', data: 'a'.repeat(60_000) }))
  for (let n = 1; n <= 3; n++) {
    const peer = await joinMute(t, `${url}/rooms/news`, offer)
    await until(() => peer.text().includes('"hello"'))
    await writeBehind(peer, Buffer.concat(Array.from({ length: Math.floor(15_000 / frame.length) }, () => frame)))
    if (!peer.socket.destroyed) await once(peer.socket, 'close')
    await until(() => left.length === n)
    t.equal(left.at(-1), 1002)
    t.ok(peer.text().includes('\x88\x02\x03\xea'), 'the peer got that code')
  }
  t.match(await other.ask({ type: 'ping' }), { ok: true })
  t.match((app.rooms as any).stats(), { members: 1, refusals: { protocol: 3 } })
})
