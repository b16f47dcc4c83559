// @fastify/websocket with the loop of its documentation over `websocketServer.clients`; with several rooms, over a Set for each.
import fastifyWebsocket from '@fastify/websocket'
import Fastify from 'fastify'
import { host, ready, RoomMap, setup } from './control.js'

const app = Fastify()
const rooms = new RoomMap()
const single = (setup.rooms ?? 1) === 1

await app.register(fastifyWebsocket, { options: { perMessageDeflate: setup.deflate === true } })

app.get('/r/:room', { websocket: true }, (socket, request) => {
  const { room } = request.params
  if (!single) rooms.join(room, socket)
  socket.on('message', (data, isBinary) => { send(room, data, isBinary) })
})

function send (room, data, binary) {
  for (const client of single ? app.websocketServer.clients : rooms.members(room)) {
    if (client.readyState === 1) client.send(data, { binary })
  }
}

await app.listen({ host, port: 0 })
ready(app.server.address().port, (room, message) => { send(room, JSON.stringify(message), false) })
