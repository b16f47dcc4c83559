import type { Mode } from '../../types/protocol.ts'

/** The subprotocols of the server; the first is used if a client offers none. */
export const modes = ['rooms.v1', 'rooms.raw'] as const satisfies readonly Mode[]

/**
 * Returns the first known name of a `Sec-WebSocket-Protocol` header; `null` if none is known. Other names are allowed beside it, because a browser
 * can send a token only in this header (`bearer.…`, for the host's hooks). The browser fails the connection unless the response has an offered name.
 */
export function negotiate (header: string | undefined): Mode | null {
  if (header === undefined) return modes[0]
  return namesOf(header).find((name): name is Mode => (modes as readonly string[]).includes(name)) ?? null
}

/** Whether a header offers this name. A client without the header takes any. */
export function offers (header: string | undefined, mode: Mode): boolean {
  return header === undefined || namesOf(header).includes(mode)
}

function namesOf (header: string): string[] {
  return header.split(',').map(entry => entry.trim())
}
