import type { WebSocketClass, WebSocketLike } from '../../types/client.ts'
import type { InjectedClient, Rooms } from '../../types/rooms.ts'

/** The longest wait for a frame, in milliseconds. Nothing ends it but a frame or the end of the connection. */
const longest = 2 ** 31 - 1

/** The states of a WebSocket. */
const CONNECTING = 0
const OPEN = 1
const CLOSING = 2
const CLOSED = 3

/**
 * Returns a class of WebSockets that lead into an app of the same process.
 * @param headers - those of each upgrade
 */
export function injectedWebSocket (rooms: Rooms<any>, headers: Record<string, string>): WebSocketClass {
  return class InjectedWebSocket implements WebSocketLike {
    onopen: WebSocketLike['onopen'] = null
    onmessage: WebSocketLike['onmessage'] = null
    onclose: WebSocketLike['onclose'] = null
    onerror: WebSocketLike['onerror'] = null
    readyState = CONNECTING
    #client: InjectedClient | undefined

    constructor (url: string, protocols: string[]) {
      const { pathname, search } = new URL(url)
      this.#run(pathname + search, protocols)
    }

    send (data: string): void {
      this.#client!.send(data)
    }

    close (code = 1000, reason = ''): void {
      if (this.readyState >= CLOSING) return
      this.readyState = CLOSING
      this.#client?.close(code, reason)
    }

    async #run (path: string, protocols: string[]): Promise<void> {
      let client
      try {
        // In this mode frames stay the text that the server has sent; the subprotocols that the client offers are those of the header.
        client = this.#client = await rooms.inject(path, { mode: 'rooms.raw', headers: { ...headers, 'sec-websocket-protocol': protocols.join(', ') } })
      } catch (error) {
        this.readyState = CLOSED
        this.onerror?.({ type: 'error', error })
        this.onclose?.({ type: 'close', code: 1006, reason: '' })
        return
      }
      if (this.readyState === CONNECTING) {
        this.readyState = OPEN
        this.onopen?.({ type: 'open' })
      } else client.close()
      try {
        for (;;) {
          const data = await client.next({ timeout: longest })
          this.onmessage?.({ type: 'message', data })
        }
      } catch {} // the connection has ended
      const { code, reason } = await client.closed
      this.readyState = CLOSED
      this.onclose?.({ type: 'close', code, reason })
    }
  }
}
