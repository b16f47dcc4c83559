import type { Mode } from '../../types/index.ts'

/** The subprotocols that the server answers to; the first stands where a client offers none. */
export const modes = ['rooms.v1', 'rooms.raw'] as const satisfies readonly Mode[]

/**
 * What a `Sec-WebSocket-Protocol` header comes to: the first of ours. `null`: it offers none of ours. A browser can carry a token
 * only here (`bearer.…`, for the host's hooks); it takes the connection only where one of the names it offered is answered.
 */
export function negotiate (header: string | undefined): Mode | null {
  if (header === undefined) return modes[0]
  const offered = header.split(',').map(entry => entry.trim())
  return offered.find((name): name is Mode => (modes as readonly string[]).includes(name)) ?? null
}
