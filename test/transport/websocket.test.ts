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

/** A connection on the server, and its client. */
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
  ['straight, with compression negotiated', deflate, 'tcp'],
  ['through ws', false, 'ws'],
  ['through ws, with compression negotiated', deflate, 'ws']
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

  t.test(`drained resolves when the peer has read: ${way}`, async t => {
    const { transport, client, received } = await create(t, options, through)
    client.pause()
    let sent = 0
    while (transport.bufferedBytes === 0 || sent < 200) {
      transport.writeFrame(frame(noise()))
      sent++
    }
    let settled = false
    const [one, two] = [transport.drained(), transport.drained()]
    t.equal(one, two, 'concurrent calls share one wait')
    one.then(() => { settled = true })
    await new Promise(resolve => setTimeout(resolve, 50))
    t.notOk(settled)
    client.resume()
    await one
    t.equal(transport.bufferedBytes, 0)
    await until(() => received.length === sent)
  })

  t.test(`drained rejects if the connection closes first: ${way}`, async t => {
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

/** 64 KiB of poorly compressible bytes. */
function noise (): string {
  let text = ''
  while (text.length < 65_536) text += Math.random().toString(36).slice(2)
  return text
}

t.test('a finished wait is followed by a new one', async t => {
  const stream = new FakeStream()
  const transport = webSocketTransport(new FakeSocket(), stream, 'rooms.v1')
  const first = transport.drained()
  stream.emit('drain')
  await first
  const second = transport.drained()
  t.not(second, first)
  stream.emit('close')
  await t.rejects(second, { message: 'the connection has closed' })
  t.same([stream.listenerCount('drain'), stream.listenerCount('close')], [new Socket().listenerCount('drain'), new Socket().listenerCount('close')], 'no listener remains')
})

t.test('buffered frames do not keep the pool of Node.js alive', async t => {
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
    t.same(sizes, Array(4).fill(!waits), waits ? 'bytes are buffered' : 'nothing is buffered')
    t.same(stream.written.map(bytes => bytes.toString()), [frame('own'), batch.whole, batch.slice(1, 2), Buffer.concat([frame('a'), frame('b')])].map(String))
  }
})

t.test('one write goes straight to TCP, and through ws only if necessary', async t => {
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
  t.equal(straight.stream.written[1], batch.whole, 'all members share these bytes')

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

t.test('drained uses no timer if the stream emits no drain: it queues an empty write behind the buffered bytes', async t => {
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
  t.equal(transport.drained(), first, 'concurrent calls share one wait')
  t.same(stream.written, [Buffer.alloc(0)])
  stream.done[0]!()
  await first
  const second = transport.drained()
  stream.done[1]!(new Error('destroyed'))
  await t.rejects(second, { message: 'destroyed' })
  socket.readyState = 2
  const third = t.rejects(transport.drained(), { message: 'the connection has closed' })
  await new Promise(resolve => setTimeout(resolve, 50)) // this timer keeps the process alive, because drained does not
  await third
  t.equal(stream.written.length, 2, 'a stream that may have ended is not written to')
})

t.test('drained rejects if a connection has closed between two checks, even with nothing buffered', async t => {
  const socket = Object.assign(new FakeSocket(), { extensions: 'permessage-deflate', bufferedAmount: 1 })
  const drained = webSocketTransport(socket, {}, 'rooms.v1').drained()
  socket.terminate()
  socket.bufferedAmount = 0
  // The check of drained does not keep the process alive.
  const alive = setTimeout(() => {}, 10_000)
  t.teardown(() => { clearTimeout(alive) })
  await t.rejects(drained, { message: 'the connection has closed' })
})

t.test('hasTaken tells whether a peer has read buffered bytes since the last call', async t => {
  const stream = new FakeStream()
  const transport = webSocketTransport(new FakeSocket(), stream, 'rooms.v1')
  const bytes = { writableLength: 0, bytesWritten: 500, writeQueueSize: 0 }
  for (const name of ['writableLength', 'bytesWritten'] as const) Object.defineProperty(stream, name, { get: () => bytes[name] })
  t.equal(transport.hasTaken(), false, 'nothing is buffered')
  bytes.writableLength = 200
  t.equal(transport.hasTaken(), true)
  t.equal(transport.hasTaken(), false)
  Object.assign(stream, { _handle: bytes })
  bytes.writeQueueSize = 150
  t.equal(transport.hasTaken(), true, 'a part of one write was taken')
  t.equal(transport.hasTaken(), false)
  Object.assign(bytes, { writableLength: 300, bytesWritten: 600 })
  t.equal(transport.hasTaken(), false, 'bytes queued meanwhile were not taken')
  bytes.writableLength = 200
  t.equal(transport.hasTaken(), true)
  Object.assign(stream, { _parent: { _handle: { writeQueueSize: 90 } } })
  t.equal(transport.hasTaken(), true, 'under TLS the socket below has the count')
  t.equal(transport.hasTaken(), false)
  const look = { written: 0, unsent: 0 }
  t.equal(transport.hasTaken(look), true, 'a look of its own')
  t.equal(transport.hasTaken(look), false)
  const socket = new FakeSocket()
  const counted = webSocketTransport(socket, {}, 'rooms.v1')
  t.equal(counted.hasTaken(), false, 'an in-process stream has no count')
  socket.bufferedAmount = 500
  Object.assign(look, { written: 0, unsent: 0 })
  t.same([400, 400, 450, 300].map(buffered => {
    const taken = counted.hasTaken(look)
    socket.bufferedAmount = buffered
    return taken
  }), [false, true, false, false])
  t.equal(counted.hasTaken(look), true, 'but its buffered bytes')
})

t.test('private frames behind buffered bytes are counted until they are written', async t => {
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
  t.equal(transport.bufferedFrames, 0, 'nothing is buffered')
  waiting = 3
  transport.writeFrame(frame('2'))
  transport.writeFrame(frame('3'))
  t.equal(transport.bufferedFrames, 2)
  for (const taken of done) taken()
  t.equal(transport.bufferedFrames, 0)
  t.equal(stream.written.length, 3)
})

t.test('a frame behind the 101 response of the same turn does not count as waiting; one behind a kilobyte does', async t => {
  const stream = new FakeStream()
  let waiting = 129 // the 101 response
  Object.defineProperty(stream, 'writableLength', { get: () => waiting })
  const transport = webSocketTransport(new FakeSocket(), stream, 'rooms.v1')
  stream.cork()
  const hello = frame('hello')
  transport.writeFrame(hello)
  t.equal(stream.written[0], hello, 'the frame is not copied')
  waiting = 1_024
  transport.writeFrame(frame('1'))
  t.equal(transport.bufferedFrames, 1)
  stream.uncork()
  waiting = 129
  transport.writeFrame(frame('2'))
  t.equal(transport.bufferedFrames, 2)
})
