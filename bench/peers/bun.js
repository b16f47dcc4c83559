// Bun with its own publish. Runs under Bun.
import { host, ready, setup } from './control.js'

const deflate = setup.deflate === true

const server = globalThis.Bun.serve({
  hostname: host,
  port: 0,
  fetch (request, server) {
    const room = new URL(request.url).pathname.slice('/r/'.length)
    if (!server.upgrade(request, { data: { room } })) return new Response('upgrade required', { status: 426 })
  },
  websocket: {
    perMessageDeflate: deflate,
    open (socket) { socket.subscribe(socket.data.room) },
    message (socket, data) { server.publish(socket.data.room, data, deflate) }
  }
})

ready(server.port, (room, message) => { server.publish(room, JSON.stringify(message), deflate) })
