import type { RoomsError } from '../../types/client.ts'

/** Returns an error of the client, or of the server. */
export const roomsError = (code: string, message: string, more?: object): RoomsError => Object.assign(new Error(message), { name: 'RoomsError' as const, code, ...more })
