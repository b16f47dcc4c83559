import type { Socket } from 'node:net'

/** Cuts a TCP connection when so many bytes have come by it. The bytes before are read. */
export function cutAfterBytes (socket: Socket, bytes: number): void {
  const { push } = socket
  let left = bytes
  socket.push = function (this: Socket, chunk: Buffer | null): boolean {
    if (chunk === null || left > chunk.length) {
      left -= chunk?.length ?? 0
      return push.call(this, chunk)
    }
    if (left > 0) push.call(this, chunk.subarray(0, left))
    left = 0
    this.destroy()
    return false
  } as Socket['push']
}
