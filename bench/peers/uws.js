// uWebSockets.js with its own publish.
import uws from 'uWebSockets.js'
import { host, ready, setup } from './control.js'

const app = uws.App()
const deflate = setup.deflate === true

app.ws('/r/:room', {
  compression: deflate ? uws.SHARED_COMPRESSOR : uws.DISABLED,
  idleTimeout: 120,
  upgrade (response, request, context) {
    response.upgrade(
      { room: request.getParameter(0) },
      request.getHeader('sec-websocket-key'),
      request.getHeader('sec-websocket-protocol'),
      request.getHeader('sec-websocket-extensions'),
      context
    )
  },
  open (socket) { socket.subscribe(socket.room) },
  message (socket, data, isBinary) { app.publish(socket.room, data, isBinary, deflate) }
})

app.listen(host, 0, token => {
  ready(uws.us_socket_local_port(token), (room, message) => { app.publish(room, JSON.stringify(message), false, deflate) })
})
