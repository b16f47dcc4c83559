import { request as httpRequest } from 'node:http'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { eventsIn } from '../helpers/event-stream.ts'
import { cutAfterBytes } from '../helpers/cut-socket.ts'

/** The transports of the model's clients. `pages`: requests that do not wait. */
export type Transport = 'rooms.v1' | 'rooms.raw' | 'event-stream' | 'long-poll' | 'pages'

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
  /**
   * @param text - a frame, in raw mode a payload, or a page
   * @param id - the `id:` of an event
   */
  received (text: string, id?: string): void
  /** @param code - the close code, or the status of a response that is not 200 */
  closed (code: number | undefined): void
}

/** A client's connection. */
export interface LinkOptions {
  /** The topic's URL, without a protocol. */
  url: string
  /** The position of the client; asked for again for each page. */
  position (): string | undefined
  /** The connection is cut after so many bytes from the server, in the middle of a frame or of a head. Pages have one connection each. */
  bytes: number
  random: () => number
  /** Messages of a page that begins anew. By default any number. */
  snapshot?: number
}

/** Connects to a server. The connection is cut after so many bytes from it. */
function connectFor (bytes: number): (options: { host?: string | null | undefined, port?: number | string | null | undefined }) => Socket {
  return ({ host, port }) => {
    const socket = connect({ host: host!, port: Number(port) })
    if (bytes === Infinity) return socket
    cutAfterBytes(socket, bytes)
    return socket
  }
}

function openSocket ({ url, position, bytes }: LinkOptions, transport: 'rooms.v1' | 'rooms.raw', { received, closed }: LinkEvents): Link {
  const since = position()
  const socket = new WebSocket(`ws://${url}${since === undefined ? '' : `?since=${since}`}`, transport === 'rooms.raw' ? [transport] : [], { createConnection: connectFor(bytes) as never })
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

/** An event stream, which resumes with `Last-Event-ID`, unless it asks for the newest values. */
function openEvents ({ url, position, bytes }: LinkOptions, { received, closed }: LinkEvents): Link {
  const since = position()
  let state: 'opening' | 'open' | 'closed' = 'opening'
  let buffered = ''
  const close = (): void => {
    if (state === 'closed') return
    state = 'closed'
    closed(undefined)
  }
  const isLatest = since === 'latest'
  const headers = { accept: 'text/event-stream', ...(since === undefined || isLatest ? {} : { 'last-event-id': since }) }
  const request = httpRequest(`http://${url}${isLatest ? '?since=latest' : ''}`, { createConnection: connectFor(bytes), headers })
  request.on('error', () => {})
  request.on('close', close)
  request.on('response', response => {
    state = 'open'
    response.setEncoding('utf8').on('error', () => {}).on('close', close).on('data', (chunk: string) => {
      const text = buffered + chunk
      const end = text.lastIndexOf('\n\n') + 2
      buffered = end === 1 ? text : text.slice(end)
      if (end > 1) for (const { event, data, id } of eventsIn(text.slice(0, end))) if (event === undefined && data !== undefined) received(data, id)
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

/** Pages of kept messages, each behind the last one: a snapshot first. They wait for messages, or begin again soon. */
function openPages ({ url, position, bytes, random, snapshot }: LinkOptions, waits: boolean, { received, closed }: LinkEvents): Link {
  let isClosed = false
  let request: ReturnType<typeof httpRequest> | undefined
  const close = (code: number | undefined): void => {
    if (isClosed) return
    isClosed = true
    request?.destroy()
    closed(code)
  }
  const next = (): void => {
    if (isClosed) return
    const since = position()
    const isAnew = since === undefined || since === 'latest'
    const limit = isAnew && snapshot !== undefined ? snapshot : 1 + Math.floor(random() * 20)
    const query = `?limit=${limit}${since === undefined ? '' : `&since=${since}`}${isAnew || !waits ? '' : `&wait=${1 + Math.floor(random() ** 2 * 200)}`}`
    const own = request = httpRequest(`http://${url}${query}`, { createConnection: connectFor(random() < 0.2 ? bytes : Infinity), headers: { connection: 'close' } })
    const fail = (): void => { if (own === request) close(undefined) }
    own.on('error', fail)
    own.on('response', response => {
      let text = ''
      response.setEncoding('utf8').on('error', fail).on('close', fail).on('data', (chunk: string) => { text += chunk }).on('end', () => {
        if (isClosed || !response.complete) return
        if (response.statusCode !== 200) {
          close(response.statusCode)
          return
        }
        request = undefined
        received(text)
        if (waits) next()
        else sleep(1 + random() * 4).then(next, () => {})
      })
    })
    own.end()
  }
  next()
  return {
    get isOpen () { return !isClosed },
    get isClosed () { return isClosed },
    get port () { return request?.socket?.localPort },
    send () { throw new Error('pages have one direction') },
    cut () { close(undefined) }
  }
}

/** Joins a topic, or begins to read its pages. */
export function openLink (options: LinkOptions, transport: Transport, events: LinkEvents): Link {
  if (transport === 'event-stream') return openEvents(options, events)
  if (transport === 'long-poll' || transport === 'pages') return openPages(options, transport === 'long-poll', events)
  return openSocket(options, transport, events)
}
