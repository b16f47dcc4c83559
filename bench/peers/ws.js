// ws with its defaults: the message is serialised once, and sent to each member in a loop.
import { WebSocket, WebSocketServer } from 'ws'
import { host, ready, RoomMap, setup } from './control.js'

const rooms = new RoomMap()
const server = new WebSocketServer({ host, port: 0, perMessageDeflate: setup.deflate === true })

server.on('connection', (socket, request) => {
  const room = request.url.slice('/r/'.length)
  rooms.join(room, socket)
  socket.on('error', () => {})
  socket.on('message', (data, isBinary) => { send(room, data, isBinary) })
})

function send (room, data, binary) {
  for (const client of rooms.members(room)) {
    if (client.readyState === WebSocket.OPEN) client.send(data, { binary })
  }
}

server.on('listening', () => {
  ready(server.address().port, (room, message) => { send(room, JSON.stringify(message), false) })
})
