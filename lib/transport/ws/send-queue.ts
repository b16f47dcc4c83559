import type { Socket } from 'node:net'

/** Neither is public: what holds the bytes of a write under way, and the socket that TLS is spoken over. */
type Inner = Socket & { _handle?: { writeQueueSize?: number } | null, _parent?: Inner | null }

/** Bytes of a write under way that the operating system has not taken: what a socket's own time-out goes by. Under TLS the socket below knows. */
export function unsentOf (socket: Socket): number {
  return ((socket as Inner)._parent ?? socket as Inner)._handle?.writeQueueSize ?? 0
}
