import { once } from 'node:events'
import { Socket, type AddressInfo } from 'node:net'
import { createServer as createHttp } from 'node:http'
import { PassThrough } from 'node:stream'
import t, { type Test } from 'tap'
import { WebSocket, WebSocketServer, type PerMessageDeflateOptions } from 'ws'
import { Batch, View } from '../../lib/room/batch.ts'
import { Connection } from '../../lib/connection/connection.ts'
import { textFrame } from '../../lib/transport/ws/frame.ts'
import { FakeSocket, FakeTransport } from '../helpers/fakes.ts'
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
  return { connection: new Connection(socket, through === 'tcp' ? socket._socket : undefined, 'rooms.v1', ''), client, received, socket }
}

const deflate = { threshold: 0 }

for (const [way, options, through] of [
  ['straight', false, 'tcp'],
  ['straight, with compression negotiated', deflate, 'tcp'],
  ['through ws', false, 'ws'],
  ['through ws, with compression negotiated', deflate, 'ws']
] as const) {
  t.test(`frames, batches and views arrive in order: ${way}`, async t => {
    const { connection, client, received, socket } = await create(t, options, through)
    t.equal(socket.extensions === '', options === false)
    const batch = new Batch(frame('b1'))
    for (const text of ['ü'.repeat(100), 'x'.repeat(70_000)]) batch.push(frame(text))
    const view = new View(batch, 1)
    view.add(frame('own'))
    batch.push(frame('last'))
    view.catchUp()
    const whole = ['b1', 'ü'.repeat(100), 'x'.repeat(70_000), 'last']
    connection.send(frame('first'))
    connection.sendBatch(batch, false)
    connection.ping(1)
    connection.sendView(view)
    connection.sendView(new View(batch, batch.length))
    connection.send(frame(''))
    const closed = once(client, 'close')
    connection.close(4005, 'kicked')
    for (const late of [() => { connection.send(frame('late')) }, () => { connection.sendBatch(batch, false) }, () => { connection.sendView(view) }]) late()
    const [code, reason] = await closed
    t.same(received, ['first', ...whole, ...whole.slice(1, 3), 'own', 'last', ''])
    t.same([code, reason.toString()], [4005, 'kicked'])
  })

  t.test(`drained resolves when the peer has read: ${way}`, async t => {
    const { connection, client, received } = await create(t, options, through)
    client.pause()
    let sent = 0
    while (connection.bufferedBytes === 0 || sent < 200) {
      connection.send(frame(noise()))
      sent++
    }
    let settled = false
    const [one, two] = [connection.drained(), connection.drained()]
    t.equal(one, two, 'concurrent calls share one wait')
    one.then(() => { settled = true })
    await new Promise(resolve => setTimeout(resolve, 50))
    t.notOk(settled)
    client.resume()
    await one
    t.equal(connection.bufferedBytes, 0)
    await until(() => received.length === sent)
  })

  t.test(`drained rejects if the connection closes first: ${way}`, async t => {
    const { connection, client, socket } = await create(t, options, through)
    client.pause()
    for (let n = 0; n < 200; n++) connection.send(frame(noise()))
    t.ok(connection.bufferedBytes > 0)
    const drained = connection.drained()
    const gone = once(socket, 'close')
    connection.terminate()
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
  const transport = new FakeTransport()
  const connection = new Connection(new FakeSocket(), transport, 'rooms.v1', '')
  const first = connection.drained()
  transport.emit('drain')
  await first
  const second = connection.drained()
  t.not(second, first)
  transport.emit('close')
  await t.rejects(second, { message: 'the connection has closed' })
  t.same([transport.listenerCount('drain'), transport.listenerCount('close')], [new Socket().listenerCount('drain'), new Socket().listenerCount('close')], 'no listener remains')
})

t.test('buffered frames do not keep the pool of Node.js alive', async t => {
  const batch = new Batch(frame('one'))
  batch.push(frame('two'))
  const part = new View(batch, 1)
  part.catchUp()
  for (const waits of [false, true]) {
    const transport = new FakeTransport()
    Object.defineProperty(transport, 'writableLength', { value: Number(waits) })
    const connection = new Connection(new FakeSocket(), transport, 'rooms.v1', '')
    connection.send(frame('own'))
    connection.sendBatch(batch, waits)
    connection.sendView(part)
    connection.sendAll([frame('a'), frame('b')])
    const sizes = transport.written.map(bytes => bytes.buffer.byteLength > 2 * bytes.length)
    t.same(sizes, Array(4).fill(!waits), waits ? 'it waits' : 'it does not')
    t.same(transport.written.map(bytes => bytes.toString()), [frame('own'), batch.whole, batch.slice(1, 2), Buffer.concat([frame('a'), frame('b')])].map(String))
  }
})

t.test('one write goes straight to TCP, and through ws only if necessary', async t => {
  const batch = new Batch(frame('1'))
  batch.push(frame('2'))
  const view = new View(batch, 0)
  view.add(frame('own'))
  const say = (connection: Connection): void => {
    connection.send(frame('0'))
    connection.sendBatch(batch, false)
    connection.sendView(view)
  }
  const straight = { socket: new FakeSocket(), transport: new FakeTransport() }
  say(new Connection(straight.socket, straight.transport, 'rooms.v1', ''))
  t.same(straight.socket.sent, [])
  t.equal(straight.transport.written.length, 3)
  t.equal(straight.transport.written[1], batch.whole, 'all members share these bytes')

  const deflated = { socket: Object.assign(new FakeSocket(), { extensions: 'permessage-deflate' }), transport: new FakeTransport() }
  say(new Connection(deflated.socket, deflated.transport, 'rooms.v1', ''))
  t.same(deflated.socket.sent, [])
  t.equal(deflated.transport.written.length, 3)

  const extended = { socket: Object.assign(new FakeSocket(), { extensions: 'permessage-deflate, x-webkit' }), transport: new FakeTransport() }
  say(new Connection(extended.socket, extended.transport, 'rooms.v1', ''))
  t.same(extended.socket.sent, ['0', '1', '2', '1', '2', 'own'])
  t.same(extended.transport.written, [])

  const stream = { socket: new FakeSocket(), transport: new PassThrough() }
  say(new Connection(stream.socket, stream.transport as never, 'rooms.v1', ''))
  t.same(stream.socket.sent, extended.socket.sent)
  t.equal(stream.transport.readableLength, 0)
})

t.test('drained uses no timer if the stream emits no drain: it queues an empty write behind the buffered bytes', async t => {
  class Quiet extends FakeTransport {
    override readonly writableNeedDrain = false
    override readonly writableLength = 100
    readonly done: ((error?: Error | null) => void)[] = []
    override write (bytes: any, done?: any): boolean {
      this.done.push(done)
      return super.write(bytes)
    }
  }
  const [socket, transport] = [new FakeSocket(), new Quiet()]
  const connection = new Connection(socket, transport, 'rooms.v1', '')
  const first = connection.drained()
  t.equal(connection.drained(), first, 'concurrent calls share one wait')
  t.same(transport.written, [Buffer.alloc(0)])
  transport.done[0]!()
  await first
  const second = connection.drained()
  transport.done[1]!(new Error('destroyed'))
  await t.rejects(second, { message: 'destroyed' })
  socket.readyState = 2
  const third = t.rejects(connection.drained(), { message: 'the connection has closed' })
  await new Promise(resolve => setTimeout(resolve, 50)) // this timer keeps the process alive, because drained does not
  await third
  t.equal(transport.written.length, 2, 'a stream that may have ended is not written to')
})

t.test('drained rejects if a connection has closed between two checks, even with nothing buffered', async t => {
  const socket = Object.assign(new FakeSocket(), { extensions: 'permessage-deflate', bufferedAmount: 1 })
  const drained = new Connection(socket, {}, 'rooms.v1', '').drained()
  socket.terminate()
  socket.bufferedAmount = 0
  // The check of drained does not keep the process alive.
  const alive = setTimeout(() => {}, 10_000)
  t.teardown(() => { clearTimeout(alive) })
  await t.rejects(drained, { message: 'the connection has closed' })
})

t.test('hasTaken tells whether a peer has read buffered bytes since the last call', async t => {
  const transport = new FakeTransport()
  const connection = new Connection(new FakeSocket(), transport, 'rooms.v1', '')
  const bytes = { writableLength: 0, bytesWritten: 500, writeQueueSize: 0 }
  for (const name of ['writableLength', 'bytesWritten'] as const) Object.defineProperty(transport, name, { get: () => bytes[name] })
  t.equal(connection.hasTaken(), false, 'nothing is buffered')
  bytes.writableLength = 200
  t.equal(connection.hasTaken(), true)
  t.equal(connection.hasTaken(), false)
  Object.assign(transport, { _handle: bytes })
  bytes.writeQueueSize = 150
  t.equal(connection.hasTaken(), true, 'a part of one write was taken')
  t.equal(connection.hasTaken(), false)
  Object.assign(bytes, { writableLength: 300, bytesWritten: 600 })
  t.equal(connection.hasTaken(), false, 'bytes queued meanwhile were not taken')
  bytes.writableLength = 200
  t.equal(connection.hasTaken(), true)
  Object.assign(transport, { _parent: { _handle: { writeQueueSize: 90 } } })
  t.equal(connection.hasTaken(), true, 'under TLS the socket below has the count')
  t.equal(connection.hasTaken(), false)
  t.equal(new Connection(new FakeSocket(), {}, 'rooms.v1', '').hasTaken(), false, 'an in-process stream has no count')
})

t.test('private frames behind buffered bytes are counted until they are written', async t => {
  const transport = new FakeTransport()
  const done: (() => void)[] = []
  let waiting = 0
  Object.defineProperty(transport, 'writableLength', { get: () => waiting })
  transport.write = ((bytes: Buffer, taken?: () => void) => {
    transport.written.push(bytes)
    if (taken !== undefined) done.push(taken)
    return true
  }) as never
  const connection = new Connection(new FakeSocket(), transport, 'rooms.v1', '')
  connection.send(frame('1'))
  t.equal(connection.waitingFrames, 0, 'nothing is buffered')
  waiting = 3
  connection.send(frame('2'))
  connection.send(frame('3'))
  t.equal(connection.waitingFrames, 2)
  for (const taken of done) taken()
  t.equal(connection.waitingFrames, 0)
  t.equal(transport.written.length, 3)
})

t.test('a frame behind the 101 response of the same turn does not count as waiting; one behind a kilobyte does', async t => {
  const transport = new FakeTransport()
  let waiting = 129 // the 101 response
  Object.defineProperty(transport, 'writableLength', { get: () => waiting })
  const connection = new Connection(new FakeSocket(), transport, 'rooms.v1', '')
  transport.cork()
  const hello = frame('hello')
  connection.send(hello)
  t.equal(transport.written[0], hello, 'the frame is not copied')
  waiting = 1_024
  connection.send(frame('1'))
  t.equal(connection.waitingFrames, 1)
  transport.uncork()
  waiting = 129
  connection.send(frame('2'))
  t.equal(connection.waitingFrames, 2)
})
