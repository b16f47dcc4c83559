import { once } from 'node:events'
import { Socket, type AddressInfo } from 'node:net'
import { createServer as createHttp } from 'node:http'
import { PassThrough } from 'node:stream'
import t, { type Test } from 'tap'
import { WebSocket, WebSocketServer, type PerMessageDeflateOptions } from 'ws'
import { Batch, BatchView } from '../../lib/room/batch.ts'
import type { Transport } from '../../lib/transport/transport.ts'
import { webSocketTransport } from '../../lib/transport/websocket.ts'
import { textFrame } from '../../lib/transport/ws/frame.ts'
import { FakeSocket, FakeStream } from '../helpers/fakes.ts'
import { until } from '../helpers/app.ts'

const frame = (text: string): Buffer => textFrame('', Buffer.from(text))

/** A connection as the server has it, and its client. */
async function create (t: Test, perMessageDeflate: boolean | PerMessageDeflateOptions, through: 'tcp' | 'ws') {
  const http = createHttp()
  const server = new WebSocketServer({ server: http, perMessageDeflate })
  http.listen(0, '127.0.0.1')
  await once(http, 'listening')
  const client = new WebSocket(`ws://127.0.0.1:${(http.address() as AddressInfo).port}`)
  t.teardown(async () => {
    client.terminate()
    for (const socket of server.clients) socket.terminate()
    await new Promise(resolve => { http.close(resolve) })
  })
  const received: string[] = []
  client.on('message', data => { received.push(data.toString()) })
  const [[socket]] = await Promise.all([once(server, 'connection'), once(client, 'open')]) as [[WebSocket & { _socket: Socket }], unknown]
  return { transport: webSocketTransport(socket, through === 'tcp' ? socket._socket : undefined, 'rooms.v1'), client, received, socket }
}

const deflate = { threshold: 0 }

for (const [way, options, through] of [
  ['straight', false, 'tcp'],
  ['straight, where compression was negotiated', deflate, 'tcp'],
  ['through ws', false, 'ws'],
  ['through ws, where compression was negotiated', deflate, 'ws']
] as const) {
  t.test(`frames, batches and views arrive in order: ${way}`, async t => {
    const { transport, client, received, socket } = await create(t, options, through)
    t.equal(socket.extensions === '', options === false)
    const batch = new Batch(frame('b1'))
    for (const text of ['ü'.repeat(100), 'x'.repeat(70_000)]) batch.push(frame(text))
    const view = new BatchView(batch, 1)
    view.add(frame('own'))
    batch.push(frame('last'))
    view.catchUp()
    const whole = ['b1', 'ü'.repeat(100), 'x'.repeat(70_000), 'last']
    transport.writeFrame(frame('first'))
    transport.writeBatch(batch, false)
    transport.keepAlive()
    transport.writeView(view)
    transport.writeView(new BatchView(batch, batch.length))
    transport.writeFrame(frame(''))
    const closed = once(client, 'close')
    transport.close(4005, 'kicked')
    for (const late of [() => { transport.writeFrame(frame('late')) }, () => { transport.writeBatch(batch, false) }, () => { transport.writeView(view) }]) late()
    const [code, reason] = await closed
    t.same(received, ['first', ...whole, ...whole.slice(1, 3), 'own', 'last', ''])
    t.same([code, reason.toString()], [4005, 'kicked'])
  })

  t.test(`drained settles when the peer has read: ${way}`, async t => {
    const { transport, client, received } = await create(t, options, through)
    client.pause()
    let sent = 0
    while (transport.bufferedBytes === 0 || sent < 200) {
      transport.writeFrame(frame(noise()))
      sent++
    }
    let settled = false
    const [one, two] = [transport.drained(), transport.drained()]
    t.equal(one, two, 'one wait for all who ask')
    one.then(() => { settled = true })
    await new Promise(resolve => setTimeout(resolve, 50))
    t.notOk(settled)
    client.resume()
    await one
    t.equal(transport.bufferedBytes, 0)
    await until(() => received.length === sent)
  })

  t.test(`drained rejects where the connection closes first: ${way}`, async t => {
    const { transport, client, socket } = await create(t, options, through)
    client.pause()
    for (let n = 0; n < 200; n++) transport.writeFrame(frame(noise()))
    t.ok(transport.bufferedBytes > 0)
    const drained = transport.drained()
    const gone = once(socket, 'close')
    transport.terminate()
    await t.rejects(drained, { message: 'the connection has closed' })
    await gone
  })
}

/** 64 KiB that compress badly. */
function noise (): string {
  let text = ''
  while (text.length < 65_536) text += Math.random().toString(36).slice(2)
  return text
}

t.test('a wait that is over is followed by another', async t => {
  const stream = new FakeStream()
  const transport = webSocketTransport(new FakeSocket(), stream, 'rooms.v1')
  const first = transport.drained()
  stream.emit('drain')
  await first
  const second = transport.drained()
  t.not(second, first)
  stream.emit('close')
  await t.rejects(second, { message: 'the connection has closed' })
  t.same([stream.listenerCount('drain'), stream.listenerCount('close')], [new Socket().listenerCount('drain'), new Socket().listenerCount('close')], 'it leaves no listeners')
})

t.test('what waits behind something else does not keep the pool of Node.js alive', async t => {
  const batch = new Batch(frame('one'))
  batch.push(frame('two'))
  const part = new BatchView(batch, 1)
  part.catchUp()
  for (const waits of [false, true]) {
    const stream = new FakeStream()
    Object.defineProperty(stream, 'writableLength', { value: Number(waits) })
    const transport = webSocketTransport(new FakeSocket(), stream, 'rooms.v1')
    transport.writeFrame(frame('own'))
    transport.writeBatch(batch, waits)
    transport.writeView(part)
    transport.writeAll([frame('a'), frame('b')])
    const sizes = stream.written.map(bytes => bytes.buffer.byteLength > 2 * bytes.length)
    t.same(sizes, Array(4).fill(!waits), waits ? 'it waits' : 'it does not')
    t.same(stream.written.map(bytes => bytes.toString()), [frame('own'), batch.whole, batch.slice(1, 2), Buffer.concat([frame('a'), frame('b')])].map(String))
  }
})

t.test('one write goes straight to TCP, and through ws only where it must', async t => {
  const batch = new Batch(frame('1'))
  batch.push(frame('2'))
  const view = new BatchView(batch, 0)
  view.add(frame('own'))
  const say = (transport: Transport): void => {
    transport.writeFrame(frame('0'))
    transport.writeBatch(batch, false)
    transport.writeView(view)
  }
  const straight = { socket: new FakeSocket(), stream: new FakeStream() }
  say(webSocketTransport(straight.socket, straight.stream, 'rooms.v1'))
  t.same(straight.socket.sent, [])
  t.equal(straight.stream.written.length, 3)
  t.equal(straight.stream.written[1], batch.whole, 'the bytes that everybody gets')

  const deflated = { socket: Object.assign(new FakeSocket(), { extensions: 'permessage-deflate' }), stream: new FakeStream() }
  say(webSocketTransport(deflated.socket, deflated.stream, 'rooms.v1'))
  t.same(deflated.socket.sent, [])
  t.equal(deflated.stream.written.length, 3)

  const extended = { socket: Object.assign(new FakeSocket(), { extensions: 'permessage-deflate, x-webkit' }), stream: new FakeStream() }
  say(webSocketTransport(extended.socket, extended.stream, 'rooms.v1'))
  t.same(extended.socket.sent, ['0', '1', '2', '1', '2', 'own'])
  t.same(extended.stream.written, [])

  const inside = { socket: new FakeSocket(), stream: new PassThrough() }
  say(webSocketTransport(inside.socket, inside.stream as never, 'rooms.v1'))
  t.same(inside.socket.sent, extended.socket.sent)
  t.equal(inside.stream.readableLength, 0)
})

t.test('drained looks at no clock where the stream announces no drain: an empty write comes behind what waits', async t => {
  class Quiet extends FakeStream {
    override readonly writableNeedDrain = false
    override readonly writableLength = 100
    readonly done: ((error?: Error | null) => void)[] = []
    override write (bytes: any, done?: any): boolean {
      this.done.push(done)
      return super.write(bytes)
    }
  }
  const [socket, stream] = [new FakeSocket(), new Quiet()]
  const transport = webSocketTransport(socket, stream, 'rooms.v1')
  const first = transport.drained()
  t.equal(transport.drained(), first, 'one for all who wait')
  t.same(stream.written, [Buffer.alloc(0)])
  stream.done[0]!()
  await first
  const second = transport.drained()
  stream.done[1]!(new Error('destroyed'))
  await t.rejects(second, { message: 'destroyed' })
  socket.readyState = 2
  const third = t.rejects(transport.drained(), { message: 'the connection has closed' })
  await new Promise(resolve => setTimeout(resolve, 50)) // it keeps no process alive
  await third
  t.equal(stream.written.length, 2, 'a stream that may have ended is not written to')
})

t.test('drained rejects where a connection has closed between two looks, though nothing waits any more', async t => {
  const socket = Object.assign(new FakeSocket(), { extensions: 'permessage-deflate', bufferedAmount: 1 })
  const drained = webSocketTransport(socket, {}, 'rooms.v1').drained()
  socket.terminate()
  socket.bufferedAmount = 0
  // Looking keeps no process alive.
  const alive = setTimeout(() => {}, 10_000)
  t.teardown(() => { clearTimeout(alive) })
  await t.rejects(drained, { message: 'the connection has closed' })
})

t.test('a peer that takes what waits for it is told from one that does not', async t => {
  const stream = new FakeStream()
  const transport = webSocketTransport(new FakeSocket(), stream, 'rooms.v1')
  const bytes = { writableLength: 0, bytesWritten: 500, writeQueueSize: 0 }
  for (const name of ['writableLength', 'bytesWritten'] as const) Object.defineProperty(stream, name, { get: () => bytes[name] })
  t.equal(transport.hasTaken(), false, 'nothing waits')
  bytes.writableLength = 200
  t.equal(transport.hasTaken(), true)
  t.equal(transport.hasTaken(), false)
  Object.assign(stream, { _handle: bytes })
  bytes.writeQueueSize = 150
  t.equal(transport.hasTaken(), true, 'a part of one write')
  t.equal(transport.hasTaken(), false)
  Object.assign(bytes, { writableLength: 300, bytesWritten: 600 })
  t.equal(transport.hasTaken(), false, 'what is queued meanwhile is not taken')
  bytes.writableLength = 200
  t.equal(transport.hasTaken(), true)
  Object.assign(stream, { _parent: { _handle: { writeQueueSize: 90 } } })
  t.equal(transport.hasTaken(), true, 'under TLS the socket below knows')
  t.equal(transport.hasTaken(), false)
  t.equal(webSocketTransport(new FakeSocket(), {}, 'rooms.v1').hasTaken(), false, 'a stream inside the process')
})

t.test('frames of its own that wait one by one are counted until they have left', async t => {
  const stream = new FakeStream()
  const done: (() => void)[] = []
  let waiting = 0
  Object.defineProperty(stream, 'writableLength', { get: () => waiting })
  stream.write = ((bytes: Buffer, taken?: () => void) => {
    stream.written.push(bytes)
    if (taken !== undefined) done.push(taken)
    return true
  }) as never
  const transport = webSocketTransport(new FakeSocket(), stream, 'rooms.v1')
  transport.writeFrame(frame('1'))
  t.equal(transport.bufferedFrames, 0, 'nothing waits')
  waiting = 3
  transport.writeFrame(frame('2'))
  transport.writeFrame(frame('3'))
  t.equal(transport.bufferedFrames, 2)
  for (const taken of done) taken()
  t.equal(transport.bufferedFrames, 0)
  t.equal(stream.written.length, 3)
})

t.test('a frame behind the answer to the upgrade, in the same turn, does not wait; one behind a kilobyte does', async t => {
  const stream = new FakeStream()
  let waiting = 129 // the answer
  Object.defineProperty(stream, 'writableLength', { get: () => waiting })
  const transport = webSocketTransport(new FakeSocket(), stream, 'rooms.v1')
  stream.cork()
  const hello = frame('hello')
  transport.writeFrame(hello)
  t.equal(stream.written[0], hello, 'no copy')
  waiting = 1_024
  transport.writeFrame(frame('1'))
  t.equal(transport.bufferedFrames, 1)
  stream.uncork()
  waiting = 129
  transport.writeFrame(frame('2'))
  t.equal(transport.bufferedFrames, 2)
})
