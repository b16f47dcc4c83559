import { request as httpRequest } from 'node:http'
import type { Socket } from 'node:net'
import { WebSocket } from 'ws'
import { eventsIn } from '../helpers/event-stream.ts'

/** The transports of the model's clients. */
export type Transport = 'rooms.v1' | 'rooms.raw' | 'event-stream'

/** One connection of a client. */
export interface Link {
  readonly isOpen: boolean
  readonly isClosed: boolean
  /** The port of this end. */
  readonly port: number | undefined
  /** Sends a frame. Event streams cannot. */
  send (text: string): void
  /** Ends the connection without a closing handshake. */
  cut (): void
}

/** The events of a link. */
export interface LinkEvents {
  /** Text of a frame, or in raw mode a payload. */
  received (text: string): void
  /** @param code - the close code, if the transport has one */
  closed (code: number | undefined): void
}

function openSocket (url: string, since: string | undefined, transport: 'rooms.v1' | 'rooms.raw', { received, closed }: LinkEvents): Link {
  const socket = new WebSocket(`ws://${url}${since === undefined ? '' : `?since=${since}`}`, transport === 'rooms.raw' ? [transport] : [])
  socket.on('error', () => {})
  socket.on('close', closed)
  socket.on('message', data => { received(String(data)) })
  return {
    get isOpen () { return socket.readyState === WebSocket.OPEN },
    get isClosed () { return socket.readyState === WebSocket.CLOSED },
    get port () { return this.isOpen ? (socket as unknown as { _socket: Socket })._socket.localPort : undefined },
    send (text) { socket.send(text) },
    cut () { socket.terminate() }
  }
}

/** An event stream, which resumes with `Last-Event-ID`. */
function openEvents (url: string, since: string | undefined, { received, closed }: LinkEvents): Link {
  let state: 'opening' | 'open' | 'closed' = 'opening'
  let buffered = ''
  const close = (): void => {
    if (state === 'closed') return
    state = 'closed'
    closed(undefined)
  }
  const request = httpRequest(`http://${url}`, { agent: false, headers: { accept: 'text/event-stream', ...(since === undefined ? {} : { 'last-event-id': since }) } })
  request.on('error', () => {})
  request.on('close', close)
  request.on('response', response => {
    state = 'open'
    response.setEncoding('utf8').on('error', () => {}).on('close', close).on('data', (chunk: string) => {
      const text = buffered + chunk
      const end = text.lastIndexOf('\n\n') + 2
      buffered = end === 1 ? text : text.slice(end)
      if (end > 1) for (const { event, data } of eventsIn(text.slice(0, end))) if (event === undefined && data !== undefined) received(data)
    })
  })
  request.end()
  return {
    get isOpen () { return state === 'open' },
    get isClosed () { return state === 'closed' },
    get port () { return this.isOpen ? request.socket?.localPort : undefined },
    send () { throw new Error('an event stream has one direction') },
    cut () { request.destroy() }
  }
}

/** Joins a topic. @param since - the position of the last message */
export function openLink (url: string, since: string | undefined, transport: Transport, events: LinkEvents): Link {
  return transport === 'event-stream' ? openEvents(url, since, events) : openSocket(url, since, transport, events)
}
