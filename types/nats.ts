/** A message that a NATS client hands to a subscription. */
export interface NatsMessage {
  readonly subject: string
  readonly data: Uint8Array
  /** `code` is 503 if a message with a reply subject has reached no subscription. */
  readonly headers?: { readonly code: number } | undefined
}

/** The methods of a NATS connection that the broker calls. The `NatsConnection` of `@nats-io/transport-node` 3 and of `@nats-io/nats-core` 3 has them. */
export interface NatsClient {
  /** The server's description of itself; `undefined` while there is no server. */
  readonly info?: { readonly max_payload: number } | undefined
  publish (subject: string, payload: Uint8Array, options?: { reply?: string }): void
  subscribe (subject: string, options: { callback: (error: Error | null, message: NatsMessage) => void }): { unsubscribe (): void }
  /** Settles if the server has taken all that was sent before. */
  flush (): Promise<void>
  status (): AsyncIterable<{ type: string, error?: Error }>
  isClosed (): boolean
  closed (): Promise<void | Error>
  reconnect (): Promise<void>
}

export interface NatsBrokerOptions {
  /**
   * A connection to the server, which may serve other parts of the app, too: the broker never closes it. A promise of one is taken as well, so that an app starts
   * though its server is down: `connect({ waitOnFirstConnect: true, maxReconnectAttempts: -1 })`.
   */
  connection: NatsClient | Promise<NatsClient>
  /**
   * The first part of all subjects, the same on all nodes: 1 to 64 characters, letters, digits, `_` and `-`, with dots between. Default `rooms`. Hosts that share a
   * server and are to be apart need different ones.
   */
  prefix?: string
  /**
   * Milliseconds between two probes, from 50 to 2,500. Default 2,000. A connection whose server has not returned one for four of them is silent: the broker is
   * `degraded`, and has the client reconnect.
   */
  probe?: number
}
