// socket.io over WebSocket only, with its own rooms.
import { createServer } from 'node:http'
import { Server } from 'socket.io'
import { forkWorkers, host, isPrimary, ready, setup } from './control.js'

async function serve () {
  const server = createServer()
  const io = new Server(server, { transports: ['websocket'], serveClient: false, perMessageDeflate: setup.deflate === true ? {} : false })

  // The adapters of its documentation, those of Redis on the same client.
  if (setup.redis !== undefined) {
    const { createAdapter, createShardedAdapter } = await import('@socket.io/redis-adapter')
    const { Redis } = await import('ioredis')
    const publisher = new Redis(setup.redis, host)
    io.adapter((setup.adapter === 'sharded' ? createShardedAdapter : createAdapter)(publisher, publisher.duplicate()))
  } else if (setup.workers !== undefined) {
    const { createAdapter } = await import('@socket.io/cluster-adapter')
    io.adapter(createAdapter())
  }

  io.on('connection', socket => {
    const { room } = socket.handshake.query
    socket.join(room)
    socket.on('m', message => { io.to(room).emit('m', message) })
  })

  server.listen({ port: 0, host, exclusive: true }, () => {
    ready(server.address().port, (room, message) => { io.to(room).emit('m', message) })
  })
}

if (isPrimary) {
  const { setupPrimary } = await import('@socket.io/cluster-adapter')
  setupPrimary()
  forkWorkers()
} else {
  await serve()
}
