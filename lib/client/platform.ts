import type { FetchLike, WebSocketClass } from '../../types/client.ts'

interface Events {
  addEventListener? (type: string, listener: () => void, options?: object): void
}

/** The globals that the client reads, if the platform has them: browsers, workers and Node.js differ. They are read when they are used. */
export interface Platform extends Events {
  readonly document?: Events & { readonly visibilityState: string }
  readonly location?: { readonly href: string }
  readonly navigator?: { readonly onLine?: boolean }
  readonly sessionStorage?: { getItem (key: string): string | null, setItem (key: string, value: string): void, removeItem (key: string): void }
  readonly WebSocket?: WebSocketClass
  readonly fetch: FetchLike
}
