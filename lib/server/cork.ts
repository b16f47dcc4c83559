import { Socket } from 'node:net'

let corked: Socket[] = []

function uncork (): void {
  const sockets = corked
  corked = []
  for (const socket of sockets) socket.uncork()
}

/**
 * What is written to a connection within this turn of the event loop leaves in one write: the answer to its upgrade and,
 * where nobody waits for anything, hello. Streams inside the process are left alone.
 */
export function corkThisTurn (socket: unknown): void {
  if (!(socket instanceof Socket)) return
  socket.cork()
  if (corked.push(socket) === 1) setImmediate(uncork)
}
