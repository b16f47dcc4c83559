import type { ClientOptions, ClientRoom, RoomOptions, RoomsError, RoomState, RoomStatus, WebSocketLike } from '../../types/client.ts'
import type { roomsError } from './error.ts'
import type { Frame } from './frame.ts'

/** A range of milliseconds. */
export interface Range { readonly min?: number, readonly max: number }

type Http = typeof import('./http.ts')

/** The parts of the client that its rooms and connections share. */
export interface Core {
  readonly options: ClientOptions
  readonly roomsError: typeof roomsError
  readonly createLink: (core: Core, target: Target) => Link
  /** The transport of connections of one room, and the function that opens it. */
  transport: 'websocket' | 'event-stream'
  open (url: URL, token: string | null | undefined): WebSocketLike
  /** Aborted when the client closes. */
  readonly signal: AbortSignal
  /** All connections. */
  readonly links: Set<Link>
  /** All rooms that are not closed, by their topics. */
  readonly rooms: Map<string, Room>
  /** No attempt is made while the page is not shown. */
  isHidden (): boolean
  /** Returns the URL of a topic, with the query of `url`. */
  url (topic: string): URL
  /** Asks for a token. */
  token (expired?: boolean): Promise<string | null | undefined>
  /** Tells `onerror`. */
  report (error: unknown): void
  /** Calls a function of the module of requests, which it loads. */
  http<K extends keyof Http> (name: K, ...values: Http[K] extends (core: Core, ...values: infer V) => unknown ? V : never): Promise<Awaited<ReturnType<Http[K]>>>
  /** Does the same, and reports errors. */
  task<K extends keyof Http> (name: K, ...values: Http[K] extends (core: Core, ...values: infer V) => unknown ? V : never): Promise<unknown>
  /** Gives each room a connection that has none. @param isAlone - from now on each has its own */
  place (isAlone?: boolean): void
}

/** The user of a connection: one room, or several that share it. */
export interface Target {
  /** Absent: the shared connection. */
  readonly topic?: string
  /** Returns the URL of the next attempt. */
  url (): URL
  /** An attempt begins. */
  begin (transport: 'websocket' | 'event-stream'): void
  /** An attempt has failed, or the connection is lost. */
  lose (status: RoomStatus, error: RoomsError | null): void
  /** A frame has come that does not concern the connection alone. */
  receive (frame: Frame): void
  /** No attempt follows. @param error - `null`: the server has closed normally, because the topic has ended */
  finish (error: RoomsError | null): void
}

/** The connection of a room, as the room uses it: its own, or its place on the shared one. */
export interface Place {
  /** Only of a connection of its own. */
  readonly isOpen?: boolean
  /** Sends a frame as text. */
  send (text: string): void
  close (): void
}

/** One connection, over all its attempts. */
export interface Link extends Place {
  readonly isOpen: boolean
  /** Connects if it is not connected, and checks whether the server is there if it is. */
  wake (): void
  /** Closes the socket until the next `wake`. */
  pause (): void
}

/** A room as its connections see it. */
export interface Room extends Target {
  readonly api: ClientRoom<any, any, any, any>
  readonly topic: string
  readonly options: RoomOptions<any, any>
  readonly now: RoomState<any, any>
  /** Requests that wait for an answer, by their `ref`. */
  readonly requests: ReadonlyMap<number, unknown>
  /** Sees all frames but hello and acks before the room does, and may take them. */
  filter?: ((frame: Frame) => boolean) | undefined
  /** A plan that ends with the room. */
  timer?: ReturnType<typeof setTimeout>
  /** Changes the state. */
  set (changes: Partial<RoomState<any, any>>): void
  /** The connection that carries it. */
  link?: Place | undefined
}

/** The attempts of a connection since it was last at rest. */
export interface Past {
  failures?: number
  /** New tokens that were asked for. */
  renewals?: number
  /** The next attempt needs a new token. */
  expired?: boolean
}

/** The end of an attempt: why (`null`: the topic has ended), and the milliseconds until the next one. Below 0: none follows. Absent: any. */
export type Verdict = readonly [error: RoomsError | null, wait?: number]

/** The answer to the question why a WebSocket has not opened. */
export interface Finding {
  /** The close code that means the same. */
  readonly code: number
  readonly range?: Range | undefined
  readonly error: RoomsError
}
