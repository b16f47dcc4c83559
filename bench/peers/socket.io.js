// socket.io over WebSocket only, with its own rooms.
import { createServer } from 'node:http'
import { Server } from 'socket.io'
import { host, ready, setup } from './control.js'

const server = createServer()
const io = new Server(server, { transports: ['websocket'], serveClient: false, perMessageDeflate: setup.deflate === true ? {} : false })

// The adapters of its documentation, on the same client.
if (setup.redis !== undefined) {
  const { createAdapter, createShardedAdapter } = await import('@socket.io/redis-adapter')
  const { Redis } = await import('ioredis')
  const publisher = new Redis(setup.redis, host)
  io.adapter((setup.adapter === 'sharded' ? createShardedAdapter : createAdapter)(publisher, publisher.duplicate()))
}

io.on('connection', socket => {
  const { room } = socket.handshake.query
  socket.join(room)
  socket.on('m', message => { io.to(room).emit('m', message) })
})

server.listen(0, host, () => {
  ready(server.address().port, (room, message) => { io.to(room).emit('m', message) })
})
