import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import t from 'tap'
import { Batch, BatchView } from '../../lib/room/batch.ts'
import { eventStreamPeer } from '../../lib/transport/event-stream.ts'

t.test('a response that waits for an earlier one takes frames behind its head, and none after its connection has closed', async t => {
  const socket = new Socket()
  const response = new ServerResponse(new IncomingMessage(socket))
  const { transport } = eventStreamPeer(response, socket, true)
  const batch = new Batch(Buffer.from('data: 1\n\n'))
  transport.writeView(new BatchView(batch, 1))
  t.equal(transport.hasBegun, true)
  const head = transport.bufferedBytes
  t.ok(head > 0)
  const view = new BatchView(batch, 0)
  view.catchUp()
  transport.writeView(view)
  t.ok(transport.bufferedBytes >= head + batch.bytes)
  socket.destroy()
  const before = transport.bufferedBytes
  transport.writeView(view)
  t.equal(transport.bufferedBytes, before)
  t.equal(transport.isOpen, false)
  await t.rejects(transport.drained(), { message: 'the connection has closed' })
})

t.test('nothing is read from the peer of an event stream, over its socket or its response', async t => {
  for (const isDirect of [true, false]) {
    const socket = new Socket()
    const response = new ServerResponse(new IncomingMessage(socket))
    if (isDirect) response.assignSocket(socket)
    const { transport } = eventStreamPeer(response, socket, true)
    transport.pause()
    t.match(transport, { canReceive: false, isPaused: false, isReceiving: false, isFragmented: false, isOpen: true })
    transport.resume()
    socket.destroy()
    t.equal(transport.isOpen, false)
    await t.rejects(transport.drained(), { message: 'the connection has closed' })
  }
})
