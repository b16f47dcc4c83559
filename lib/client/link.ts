import type { RoomsError, WebSocketLike } from '../../types/client.ts'
import { roomsError } from './error.ts'
import type { Frame } from './frame.ts'
import { createRetry, type Range, type Retry } from './retry.ts'
import type { Request, Room } from './room.ts'

/** Time for a connection to open and say hello, and for the answer to a ping, in milliseconds. */
const patience = 10_000

/** Time for the answer to a ping after a wake-up, in milliseconds. */
const wakePatience = 2_000

/** Time for the answer to any other frame, in milliseconds. */
const longestAnswer = 30_000

/** Interval of checks for a server that sends no pings, in milliseconds. */
const defaultInterval = 25_000

/** An attempt that is younger than this is not begun again by a wake-up, in milliseconds. */
const young = 1_000

/** The parts of the client that a connection uses. */
export interface LinkContext {
  /** Requests without an answer, by their `ref`. */
  readonly requests: Map<number, Request>
  /** Whether there is a function that returns a new token. */
  readonly canRenew: boolean
  token (expired: boolean): Promise<string | null | undefined>
  report (error: unknown): void
  /** `hidden`: no attempt is made. `offline`: attempts are likely to fail. */
  away (): 'hidden' | 'offline' | undefined
  /** Whether the connection of a room alone is an event stream for now. */
  isStreaming (): boolean
  /** WebSockets do not come through. */
  stream (): void
  /** Opens the transport of one attempt: of a room alone, or of the shared connection. */
  open (room: Room | undefined, isStream: boolean, token: string | null | undefined): Promise<WebSocketLike>
  /** Asks by a request why a WebSocket has not opened. */
  probe (room: Room | undefined, token: string | null | undefined): Promise<RoomsError>
  /** Whether the rooms of a connection go elsewhere, because the server does not know it. */
  isAbandoned (link: Link, error: RoomsError): boolean
  /** A connection has closed for good. */
  closed (link: Link): void
}

/** One connection, over all its attempts. */
export interface Link {
  readonly isOpen: boolean
  readonly rooms: ReadonlyMap<string, Room>
  add (room: Room): void
  remove (room: Room): void
  /** Sends a frame of a topic, as text. */
  send (text: string, topic: string): void
  /** Connects if it is not connected, and checks whether the server is there if it is. */
  wake (): void
  /** Closes the socket until the next `wake`. */
  pause (): void
  /** Closes as soon as no request waits for an answer. */
  retire (): void
  close (): void
}

/**
 * Makes a connection.
 * @param own - the room that it carries; absent: it carries several, each of which joins by a frame
 */
export const createLink = (context: LinkContext, own?: Room): Link => {
  const { requests } = context
  const rooms = new Map<string, Room>()
  /** When the rooms of a shared connection try again to join. */
  const retries = new Map<Room, Retry>()
  let socket: WebSocketLike | undefined
  /** The attempt that is under way, or open. Events of all others are ignored. */
  let current: object | undefined
  let startedAt = 0
  let token: string | null | undefined
  let isStream = false
  /** The handshake of this attempt has ended. */
  let isConnected = false
  let isOpen = false
  let wasOpen = false
  let isRetired = false
  let blocked = 0
  let heard = false
  let lastError: RoomsError | null = null
  /** Ends the attempt, or the wait for the answer to a ping. */
  let timer: ReturnType<typeof setTimeout> | undefined
  let ticker: ReturnType<typeof setInterval> | undefined

  const mine = (): Room[] => [...rooms.values()].filter(room => room.link === link)
  const write = (frame: object): void => socket!.send(JSON.stringify(frame))
  const closing = (code: number, reason: string): RoomsError => roomsError(reason || 'lost', `the connection has ended: ${code} ${reason}`, { status: code })
  const loseAll = (code?: number): void => {
    for (const room of rooms.values()) room.lose(link, context.away() ? 'waiting' : 'reconnecting', code, lastError)
  }
  /** Ends the current attempt, and tells no room. */
  const cut = (isDead?: boolean): void => {
    clearTimeout(timer)
    clearInterval(ticker)
    for (const retry of retries.values()) retry.reset()
    const old = socket
    current = socket = undefined
    isOpen = isConnected = false
    // The closing handshake with a server that is gone would take 30 s in Node.js.
    if (isDead && old?.terminate) old.terminate()
    else old?.close(1000)
  }

  const start = async (): Promise<void> => {
    cut()
    if (context.away() === 'hidden') return loseAll()
    const attempt = current = {}
    startedAt = Date.now()
    isStream = !!own && context.isStreaming()
    for (const room of mine()) room.begin(isStream ? 'event-stream' : 'websocket')
    try {
      token = await context.token(retry.expired)
      if (current !== attempt) return
      timer = setTimeout(end, patience, 1006, 'timeout')
      const opened = await context.open(own, isStream, token)
      if (current !== attempt) return opened.close()
      socket = opened
      opened.onopen = () => {
        if (current === attempt) isConnected = true
      }
      opened.onmessage = ({ data }) => {
        if (current === attempt) receive(data)
      }
      opened.onclose = ({ code, reason }) => {
        if (current === attempt) end(code, reason)
      }
    } catch (error) {
      if (current === attempt) end(0, '', undefined, error as RoomsError)
    }
  }

  /** An attempt has failed, or the connection is lost. */
  const end = async (code: number, reason: string, range?: Range, error = closing(code, reason)): Promise<void> => {
    const isHidden = !isConnected && !isStream && code === 1006 // browsers hide why
    cut(code === 1006)
    if (isRetired) return link.close()
    if (isHidden) {
      const attempt = current = {}
      error = await context.probe(own, token)
      if (current !== attempt) return
      current = undefined
      if (!wasOpen && context.isAbandoned(link, error)) return
      if (error.code === 'blocked' && ++blocked > 1) context.stream()
      code = error.status ?? code
    }
    const { retryAfter: min } = error
    lastError = error
    if (error.code !== 'bad_url' && retry.after(code, range ?? (min ? { min, max: 2 * min } : undefined))) loseAll(code)
    else {
      for (const room of mine()) room.finish(error)
      link.close()
    }
  }
  const retry = createRetry(start, context.canRenew)

  const join = ({ topic, id, isFollowed }: Room): void => {
    write({ type: 'join', topic, since: id ?? undefined, presence: isFollowed || undefined, ref: 'join' })
  }
  /** The server has refused a room of a shared connection, or ended its membership. */
  const refuse = (room: Room, code: number, range: Range | undefined, error: RoomsError): void => {
    if (room.link !== link) {
      rooms.delete(room.topic)
      return
    }
    let again = retries.get(room)
    if (!again) {
      again = createRetry(() => {
        room.begin('websocket')
        join(room)
      }, context.canRenew)
      retries.set(room, again)
    }
    if (!again.after(code, range)) room.finish(error)
    else if (again.expired) end(code, error.code)
    else room.lose(link, 'reconnecting', code, error)
  }

  const ping = (milliseconds: number): void => {
    heard = false
    write({ type: 'ping', ref: 0 })
    clearTimeout(timer)
    timer = setTimeout(() => {
      if (!heard) end(1006, 'silent', { min: 0, max: 0 })
    }, milliseconds)
  }
  const tick = (): void => {
    for (const request of requests.values()) {
      if (request.link === link && Date.now() - request.sentAt > longestAnswer) request.settle(roomsError('unknown', 'the server has not answered'))
    }
    if (isStream && !context.isStreaming()) end(1001, 'websocket')
    else if (heard) heard = false
    else ping(patience)
  }

  const receive = (data: string): void => {
    let frame: Frame
    try {
      frame = JSON.parse(data)
    } catch {
      return
    }
    heard = true
    const { type, topic, ref, error, code, reason } = frame ?? {}
    const room = own ?? rooms.get(topic!)
    const fault = error && roomsError(error.code, error.message, { details: error.details })
    if (type === 'ack') {
      if (ref !== 'join') requests.get(ref as number)?.settle(fault, frame.data)
      else if (room && fault) refuse(room, frame.close ?? 4003, frame.retry, fault)
      if (isRetired) link.retire()
    } else if (type === 'error') context.report(fault)
    else if (type === 'bye') {
      if (!topic) end(code, reason, frame.retry)
      else if (room) refuse(room, code, frame.retry, closing(code, reason))
    } else if (type === 'expiring') {
      const attempt = current
      context.token(true).then(renewed => {
        if (renewed && current === attempt) write({ type: 'auth', token: renewed })
      }).catch(context.report)
    } else {
      if (type === 'hello') {
        if (own || !topic) {
          clearTimeout(timer)
          clearInterval(ticker)
          isOpen = wasOpen = true
          blocked = isStream ? blocked : 0
          lastError = null
          retry.succeed()
          ticker = setInterval(tick, frame.heartbeat || defaultInterval)
          if (!own) for (const each of rooms.values()) join(each)
        } else if (room) retries.get(room)?.succeed()
      }
      room?.receive(frame, link)
    }
  }

  const link: Link = {
    get isOpen () { return isOpen },
    rooms,
    add (room) {
      rooms.set(room.topic, room)
      if (!current) start()
      else if (room.link === link) room.begin('websocket')
      if (isOpen) join(room)
    },
    remove (room) {
      retries.get(room)?.reset()
      retries.delete(room)
      rooms.delete(room.topic)
      if (!rooms.size) link.close()
      else if (isOpen) write({ type: 'leave', topic: room.topic, ref: 0 })
    },
    send (text, topic) {
      socket!.send(own ? text : text.replace(',', () => `,"topic":${JSON.stringify(topic)},`))
    },
    wake () {
      if (isOpen) ping(wakePatience)
      else if (!current || Date.now() - startedAt > young) {
        retry.reset()
        start()
      }
    },
    pause () {
      retry.reset()
      cut()
      loseAll()
    },
    retire () {
      isRetired = true
      if (![...requests.values()].some(request => request.link === link)) link.close()
    },
    close () {
      retry.reset()
      cut()
      context.closed(link)
    }
  }
  return link
}
