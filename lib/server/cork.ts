import { Socket } from 'node:net'

let corked: Socket[] = []

function uncork (): void {
  const sockets = corked
  corked = []
  for (const socket of sockets) socket.uncork()
}

/**
 * Corks a socket until the end of this turn of the event loop, so that the upgrade response and hello leave in one write if nothing in between
 * is asynchronous. Streams of injected clients are not corked.
 */
export function corkThisTurn (socket: unknown): void {
  if (!(socket instanceof Socket)) return
  socket.cork()
  if (corked.push(socket) === 1) setImmediate(uncork)
}
