import type { ClientOptions, RoomsError, WebSocketLike } from '../../types/client.ts'
import { closeBehaviour } from '../protocol/close-codes.ts'
import { roomsError } from './error.ts'
import type { Frame } from './frame.ts'
import type { Finding } from './http.ts'
import { platform } from './platform.ts'
import type { Room } from './room.ts'

/** Time for a connection to open and say hello, and for the answer to a ping, in milliseconds. */
const patience = 10_000

/** Time for the answer to a ping after a wake-up, in milliseconds. */
const wakePatience = 2_000

/** Interval of pings if the server does not name one, in milliseconds. */
const defaultInterval = 25_000

/** Shortest and longest of the ranges of random times between two attempts, in milliseconds. */
const shortest = 500
const longest = 20_000

/** Time after which a connection counts as one that works, in milliseconds. */
const settled = 5_000

/** Time for which event streams take the place of WebSockets that do not come through, in milliseconds. */
const streaming = 300_000

/** A range of milliseconds. */
export interface Range { readonly min: number, readonly max: number }

/** The parts of the client that its rooms and connections share. */
export interface Core {
  readonly options: ClientOptions
  /** Aborted when the client closes. */
  readonly signal: AbortSignal
  /** Until when rooms use event streams, in milliseconds since 1970. */
  until: number
  /** No attempt is made while the page is not shown. */
  isHidden (): boolean
  /** Returns the URL of a topic, or of the shared connection, with the query of `url` and further parameters. */
  url (topic?: string, query?: object): URL
  /** Asks for a token. */
  token (expired?: boolean): Promise<string | null | undefined>
  /** Tells `onerror`. */
  report (error: unknown): void
  /** Loads the module of requests. */
  http (): Promise<typeof import('./http.ts')>
  /** A connection has closed for good. `isUnknown`: because the server does not know the shared connection. */
  closed (link: Link, isUnknown?: boolean): void
  /** A room has closed. */
  left (room: Room): void
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
  close (): void
}

/** The characters of base64 that a subprotocol cannot have. */
const replaced: Record<string, string> = { '+': '-', '/': '_' }

/**
 * Makes a connection.
 * @param own - the room that it carries; absent: it carries several, each of which joins by a frame
 */
export const createLink = (core: Core, own?: Room): Link => {
  const rooms = new Map<string, Room>()
  let socket: WebSocketLike | undefined
  /** The attempt that is under way, or open. Events of all others are ignored. */
  let current: object | undefined
  let token: string | null | undefined
  let isStream: unknown
  let isOpen: unknown
  let wasOpen: unknown
  let heard: unknown
  let expired: boolean | undefined
  let blocked = 0
  let failures = 0
  let renewals = 0
  let openedAt = NaN
  let lastError: RoomsError | null = null
  /** Ends the attempt, or the wait for the answer to a ping; begins the next attempt. */
  let timer: ReturnType<typeof setTimeout>
  let ticker: ReturnType<typeof setInterval>

  const each = (act: (room: Room) => void): void => rooms.forEach(room => room.link === link && act(room))
  const write = (frame: object): void => socket!.send(JSON.stringify(frame))
  const after = (milliseconds: number, act: () => void): void => {
    clearTimeout(timer)
    timer = setTimeout(act, milliseconds)
  }
  const random = ({ min, max }: Range): number => min + Math.random() * (max - min)
  const loseAll = (): void => each(room => room.lose(core.isHidden() || platform.navigator?.onLine === false ? 'waiting' : 'reconnecting', lastError))
  /** Ends the current attempt, and tells no room. */
  const cut = (isDead?: boolean): void => {
    clearTimeout(timer)
    clearInterval(ticker)
    const old = socket
    current = socket = isOpen = undefined
    // The closing handshake with a server that is gone would take 30 s in Node.js.
    if (isDead && old?.terminate) old.terminate()
    else old?.close(1000)
  }

  const start = async (): Promise<void> => {
    cut()
    if (core.isHidden()) return loseAll()
    const WebSocket = core.options.WebSocket ?? platform.WebSocket
    const attempt = current = {}
    let step = 'token'
    isStream = own && (!WebSocket || Date.now() < core.until)
    each(room => room.begin(isStream ? 'event-stream' : 'websocket'))
    after(patience, () => fail(step === 'token' ? 0 : 1006, step))
    try {
      token = await core.token(expired)
      if (current !== attempt) return
      step = 'bad_url'
      const url = core.url(own?.topic, own && { since: own.id, presence: own.options.presence && 1 })
      if (isStream) {
        step = 'unreachable'
        const { openEventStream } = await import('./event-stream.ts')
        if (current !== attempt) return
        socket = openEventStream(core, url, token)
      } else socket = new WebSocket!(url.href.replace(/^http/, 'ws'), ['rooms.v1', ...token ? ['bearer.' + btoa(String.fromCharCode(...new TextEncoder().encode(token))).replace(/[+/=]/g, character => replaced[character] ?? '')] : []])
      step = 'timeout'
      socket.onmessage = ({ data }) => { if (current === attempt) receive(data) }
      socket.onclose = ({ code, reason }) => { if (current === attempt) fail(code, reason) }
      socket.onerror = () => {}
    } catch (cause) {
      if (current === attempt) fail(step === 'bad_url' ? 4000 : 0, step, undefined, roomsError(step, `${cause}`, { cause }))
    }
  }

  const lost = (code: number, reason: string): RoomsError => roomsError(reason || 'lost', `closed: ${code} ${reason}`, { status: code })
  /** An attempt has failed, or the connection is lost. */
  const fail = async (code: number, reason: string, range?: Range, error = lost(code, reason)): Promise<void> => {
    const isUnexplained = code === 1006 && !isOpen && !isStream // browsers hide the reason
    cut(code === 1006)
    if (isUnexplained) {
      const attempt = current = {}
      const found: Finding = await core.http().then(http => http.probe(core, own?.topic, token)).catch(cause => ({ code, error: roomsError('unreachable', `${cause}`) }))
      if (current !== attempt) return
      current = undefined
      if (!own && !wasOpen && !found.code) return core.closed(link, true);
      ({ code, range, error } = found)
      if (error.code === 'blocked' && ++blocked > 1) core.until = Date.now() + streaming
    }
    const behaviour = closeBehaviour(code)
    lastError = error
    if (openedAt < Date.now() - settled) failures = renewals = 0
    openedAt = NaN
    expired = behaviour === 'renew'
    if (behaviour === 'stop' || (expired && renewals++)) {
      each(room => room.finish(error))
      link.close()
    } else {
      if (behaviour === 'backoff') failures += 2
      after(random(range ?? { min: 0, max: Math.min(longest, shortest * 2 ** failures++) }), start)
      loseAll()
    }
  }

  const join = ({ topic, id, options }: Room): void => write({ type: 'join', topic, since: id ?? undefined, presence: options.presence, ref: 0 })

  /** Asks the server whether it is there. */
  const ping = (milliseconds: number): void => {
    heard = false
    write({ type: 'ping', ref: 0 })
    after(milliseconds, () => heard || fail(1006, 'silent', { min: 0, max: 0 }))
  }

  const receive = (data: string): void => {
    let frame: Frame
    try {
      frame = JSON.parse(data)
    } catch {
      return
    }
    heard = true
    const { type, topic, error, code, reason, retry, close = code } = frame ?? {}
    const room = own ?? rooms.get(topic!)
    const fault = error && roomsError(error.code, error.message, error)
    const attempt = current
    if (type === 'hello' && (own || !topic)) {
      clearTimeout(timer)
      isOpen = wasOpen = heard
      openedAt = Date.now()
      lastError = null
      expired = false
      ticker = setInterval(() => {
        if (isStream && Date.now() > core.until) fail(1001, 'websocket')
        else if (heard) heard = false
        else ping(patience)
      }, frame.heartbeat || defaultInterval)
      if (!own) rooms.forEach(join)
    }
    if (type === 'bye' && (own || !topic)) fail(code, reason, retry)
    else if (type === 'error') core.report(fault)
    else if (type === 'expiring') core.token(true).then(renewed => renewed && current === attempt && write({ type: 'auth', token: renewed })).catch(core.report)
    else if (!room) { /* an answer to a ping, or a topic that was left */ } else if (close) {
      // The server has refused a room of a shared connection, or ended its membership.
      if (room.link !== link) rooms.delete(topic!)
      else if (closeBehaviour(close) === 'stop') room.finish(fault ?? lost(close, reason))
      else {
        room.lose('reconnecting', fault ?? lost(close, reason))
        room.later(random(retry ?? { min: shortest, max: longest }), () => { if (isOpen) join(room) })
      }
    } else if (room.link === link) room.receive(frame)
    else if (type === 'hello') {
      // The room moves here, unless its own connection has messages or answers to come.
      const old = room.link!
      if (old.isOpen && (!frame.recovered || room.isBusy)) link.remove(room)
      else {
        room.link = link
        room.receive(frame)
        old.close()
      }
    }
  }

  const link: Link = {
    get isOpen () { return !!isOpen },
    rooms,
    add (room) {
      rooms.set(room.topic, room)
      if (!current) start()
      else if (room.link === link) room.begin('websocket')
      if (isOpen) join(room)
    },
    remove (room) {
      rooms.delete(room.topic)
      if (!rooms.size) link.close()
      else if (isOpen) write({ type: 'leave', topic: room.topic, ref: 0 })
    },
    send: (text, topic) => socket!.send(own ? text : text.replace(',', () => `,"topic":${JSON.stringify(topic)},`)),
    wake () {
      failures = 0
      if (isOpen) ping(wakePatience)
      else if (!current) start()
    },
    pause () {
      cut()
      loseAll()
    },
    close () {
      cut()
      core.closed(link)
    }
  }
  return link
}
