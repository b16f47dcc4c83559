import type { RoomsError } from '../../types/client.ts'

/** Returns an error of the client, or of the server. */
export const roomsError = (code: string, message: string, more?: { status?: number | undefined, retryAfter?: number, details?: unknown, cause?: unknown }): RoomsError =>
  Object.assign(new Error(message), { name: 'RoomsError', code, ...more }) as RoomsError
