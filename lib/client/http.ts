import type { FetchResponse, GetOptions, RoomsError } from '../../types/client.ts'
import type { GapFrame, Ref } from '../../types/protocol.ts'
import { closeBehaviour } from '../protocol/close-codes.ts'
import type { Core, Finding, Link, Past, Range, Room, Target, Verdict } from './core.ts'
import type { Platform } from './platform.ts'
import type { Frame } from './frame.ts'
import { behind, isUpTo } from './position.ts'

/** Time for a token, and for an answer, in milliseconds. */
const patience = 10_000

/** The parts of a request that most requests do not need. */
export interface RequestDetails {
  /** Absent: the client's. */
  token?: string | null | undefined
  /** Absent: the request is aborted after 10 s, and with the client. */
  signal?: AbortSignal
  method?: string
  body?: string
  headers?: Record<string, string>
}

/** Waits for a promise, for 10 s at most. */
async function soon<V> (promise: Promise<V>): Promise<V> {
  let timer
  const timeout = new Promise<never>((resolve, reject) => { timer = setTimeout(reject, patience, new Error('timeout')) })
  try {
    return await Promise.race([promise, timeout])
  } finally {
    clearTimeout(timer)
  }
}

/**
 * Makes a request that carries a token. Its answer may be a refusal.
 * @throws RoomsError `unreachable`, `token`
 */
export async function send (core: Core, url: URL, accept: string, { token, headers, ...more }: RequestDetails = {}): Promise<FetchResponse> {
  const { options, roomsError } = core
  try {
    token ??= await soon(core.token())
  } catch (cause) {
    throw roomsError('token', `${cause}`, { cause })
  }
  const href = url.href.replace(/^ws/, 'http')
  const init = { cache: 'no-store', signal: AbortSignal.any([core.signal, AbortSignal.timeout(patience)]), ...more }
  try {
    return await (options.fetch ?? (globalThis as unknown as Platform).fetch)(href, { ...init, headers: { accept, ...token ? { authorization: `Bearer ${token}` } : {}, ...options.headers, ...headers } })
  } catch (cause) {
    throw roomsError('unreachable', `${url.origin} does not answer: ${cause}`, { cause })
  }
}

/**
 * Reads a JSON answer.
 * @throws RoomsError with the status and code of a refusal, `bad_response`, `unreachable` if the connection is lost before its end
 */
export async function read ({ roomsError }: Core, url: URL, response: FetchResponse): Promise<any> {
  const { ok, status, headers } = response
  const text = await response.text().catch((cause: unknown) => { throw roomsError('unreachable', `${url.origin} was lost: ${cause}`, { cause }) })
  let body: any
  try {
    body = JSON.parse(text)
  } catch {}
  if (ok && body) return body
  const retryAfter = Number(headers.get('retry-after')) * 1_000
  const code = body?.code ?? (ok ? 'bad_response' : `http_${status}`)
  throw roomsError(code, body?.message ?? `${url.pathname} was answered with HTTP status ${status}: ${headers.get('content-type')}`, { status, ...retryAfter > 0 ? { retryAfter } : {} })
}

/** Returns the close code that means the same as an HTTP status; `0`: the status of a server that did not answer. */
export function codeOf (status: number): number {
  if (status === 0) return 1006
  if (status === 401) return 4301
  return status < 400 || status === 408 || status === 425 || status === 429 || status > 499 ? 4100 : 4000
}

/** Reads the messages that a topic keeps. */
export async function get (core: Core, topic: string, query: GetOptions = {}): Promise<any> {
  let url
  try {
    url = core.url(topic)
  } catch (cause) {
    throw core.roomsError('bad_url', `${cause}`, { cause })
  }
  for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, `${value}`)
  return read(core, url, await send(core, url, 'application/json'))
}

/** The sessions that rooms had when a WebSocket of theirs did not come through. */
const blocked = new WeakMap<Target, string>()

/** Time for which event streams take the place of WebSockets, in milliseconds. */
const streamingTime = 300_000

const storageKey = 'fastify-rooms'

/** Lets the connections of the client be event streams, for 5 minutes or as long as the page's session has begun. There may be no storage. */
export async function stream (core: Core): Promise<void> {
  const { sessionStorage, WebSocket = core.options.WebSocket } = globalThis as unknown as Platform
  let until = Date.now() + streamingTime
  try {
    until = Number(sessionStorage?.getItem(storageKey) ?? until)
    sessionStorage?.setItem(storageKey, `${until}`)
  } catch {}
  const left = until - Date.now()
  const isForced = WebSocket === undefined
  if (left <= 0 && !isForced) {
    sessionStorage?.removeItem(storageKey)
    return
  }
  const { openEventStream } = await import('./event-stream.ts')
  const { transport, open } = core
  if (transport === 'event-stream' || core.signal.aborted) return // another room was faster, or the client has been closed
  const streams = new Set<ReturnType<typeof openEventStream>>()
  core.transport = 'event-stream'
  core.open = (url, token) => {
    const socket = openEventStream(core, url, token)
    streams.add(socket)
    return socket
  }
  if (isForced) return
  const timer = setTimeout(() => {
    core.transport = transport
    core.open = open
    sessionStorage?.removeItem(storageKey)
    for (const socket of streams) socket.onclose?.({ code: 1001, reason: 'websocket' })
  }, left)
  core.signal.addEventListener('abort', () => { clearTimeout(timer) })
}

/** Asks why a WebSocket has not opened, because browsers hide the answer to a refused upgrade. */
export async function probe (core: Core, target: Target, token: string | null | undefined): Promise<Finding> {
  const { topic } = target
  const url = target.url()
  url.searchParams.delete('since')
  url.searchParams.delete('presence')
  if (topic !== undefined) url.searchParams.set('limit', '1')
  let isKnown = topic !== undefined
  try {
    const { protocols } = await read(core, url, await send(core, url, 'application/json', { token }))
    isKnown ||= protocols !== undefined
  } catch (caught) {
    const error = caught as RoomsError
    const { status = 0, retryAfter } = error
    // A page at the URL of the shared connection means that the server does not know that.
    const code = topic === undefined && status > 0 && status < 400 ? 4000 : codeOf(status)
    if (code !== 4000) return { code, range: retryAfter === undefined ? undefined : { min: retryAfter, max: retryAfter * 2 }, error }
    // Members may join a topic without the right to read the messages that it keeps.
    const isReadingRefused = status === 403 && error.message.endsWith(': history')
    if (!isReadingRefused || topic === undefined) return { code, error }
  }
  // Once may be an accident: the server was started between the two requests.
  const sessions = `${topic === undefined ? [...core.rooms.values()].map(({ now }) => now.session) : (target as Room).now.session}`
  const isBlocked = blocked.get(target) === sessions
  blocked.set(target, sessions)
  if (isBlocked) await stream(core)
  // Event streams carry one topic each. Something else may answer at the URL of the shared connection.
  return { code: topic === undefined && (isBlocked || !isKnown) ? 4000 : 1006, error: core.roomsError('blocked', `${url.origin} answers requests, but WebSockets do not come through`) }
}

/** Shortest and longest of the ranges of random times between two attempts, in milliseconds. */
const shortest = 500
const longest = 20_000

/**
 * Decides what follows the end of an attempt, or of a connection.
 * @param code - a close code; 0: none
 * @param known - the error of the close
 * @param isUnexplained - a WebSocket has not opened
 */
export async function judge (core: Core, target: Target, past: Past, token: string | null | undefined, code: number, known: RoomsError, range: Range | undefined, isUnexplained: boolean): Promise<Verdict> {
  const found: Finding = isUnexplained ? await probe(core, target, token) : { code, range, error: known }
  const { failures = 0, renewals = 0 } = past
  const behaviour = closeBehaviour(found.code)
  past.expired = behaviour === 'renew'
  if (code === 1000 && target.topic !== undefined) return await complete(core, target as Room) ? [null, -1] : [found.error, reloadAgain]
  if (behaviour === 'stop' || (past.expired && renewals > 0)) return [found.error, -1]
  if (past.expired) past.renewals = renewals + 1
  const steps = failures + (behaviour === 'backoff' ? 2 : 0)
  past.failures = found.range === undefined ? steps + 1 : steps
  const { min = 0, max } = found.range ?? { max: Math.min(longest, shortest * 2 ** steps) }
  return [found.error, min + Math.random() * (max - min)]
}

/** Does nothing. A client calls it to have this module when there is no network, or after a deploy has removed its file. */
export function warm (): void {}

/** Time until a reload that has failed is tried again, in milliseconds. */
const reloadAgain = 5_000

/** The reloads that are under way. */
const reloads = new WeakMap<Room, Promise<void>>()

/** Ends of topics that rooms are told behind their next reload. */
const ends = new WeakMap<Room, Frame>()

async function hold (core: Core, room: Room): Promise<void> {
  const { topic, options } = room
  let frames: Frame[] = []
  let { session } = room.now
  let isWhole = false
  /** Takes messages that the snapshot before has. */
  const { filter: before } = room
  const take = (frame: Frame): true => {
    // A new membership begins behind the position that the room has, and brings later frames again.
    if (session !== room.now.session) frames = []
    session = room.now.session
    frames.push(frame)
    // The server closes the room's place now, and that must not close the room before it has these frames.
    if (frame.type === 'end') room.link?.close()
    return true
  }
  room.filter = take
  try {
    let join
    let filter
    do {
      join = room.now.session
      const snapshot = await get(core, topic)
      const { id } = snapshot
      // Another node may be behind the one that has sent the last message.
      if (id !== undefined && id !== room.now.id && isUpTo(id, room.now.id ?? '')) throw core.roomsError('stale', `the snapshot of "${topic}" is older than its last message`)
      await options.reload?.(snapshot)
      if (id !== undefined) {
        room.set({ id })
        filter = behind(room, id)
      }
    } while (join !== room.now.session) // messages may be missing again
    room.filter = filter
    room.set({ recovered: true, gap: null })
    clearTimeout(room.timer)
    isWhole = true
  } finally {
    if (room.filter === take) room.filter = before
    reloads.delete(room)
    const end = frames.at(-1)?.type === 'end' ? frames.pop() : ends.get(room)
    if (end !== undefined) {
      if (isWhole || options.reload === undefined) frames.push(end)
      else {
        ends.set(room, end)
        again(core, room)
      }
    }
    frames.forEach(room.receive)
  }
}

/**
 * Hands a snapshot of a topic to the application, which replaces its state. Messages that arrive meanwhile follow it.
 * @throws RoomsError if there is none; what the application throws
 */
export function reload (core: Core, room: Room): Promise<void> {
  const known = reloads.get(room) ?? hold(core, room)
  reloads.set(room, known)
  return known
}

/** Reloads because messages are missing, until it succeeds. Named by the frame, as `presence` is. */
export async function gap (core: Core, room: Room, _frame?: Frame): Promise<void> {
  if (room.options.reload === undefined) return
  try {
    await reload(core, room)
  } catch (error) {
    core.report(error)
    again(core, room)
  }
}

/** Plans another reload. */
function again (core: Core, room: Room): void {
  clearTimeout(room.timer)
  if (room.now.status !== 'closed') room.timer = setTimeout(gap, reloadAgain, core, room)
}

/** The topic of a room has ended, and the server has nothing more for the room. Reloads if messages are missing. Returns whether none are. */
export async function complete (core: Core, room: Room): Promise<boolean> {
  const { now: { recovered, gap }, options } = room
  if (options.reload === undefined || (recovered && gap === null)) return true
  try {
    await reload(core, room)
    return true
  } catch (error) {
    core.report(error)
    return false
  }
}

/** Sends a new token, because the credentials of a connection end soon. */
export async function renew (core: Core, link: Link): Promise<void> {
  const token = await soon(core.token(true))
  // A connection that was lost meanwhile gets its token with the next attempt.
  if (token && link.isOpen) link.send(JSON.stringify({ type: 'auth', token }))
}

/** Answers a private message that has a `ref`, unless the connection that it came by is lost: the question has ended with it. */
export function answer (_core: Core, room: Room, session: string | null, ref: Ref, data?: unknown): void {
  if (session === room.now.session) room.link?.send(JSON.stringify({ type: 'ack', ref, data }))
}

/** Most messages that an iteration may be behind, as in room.ts. */
const longestQueue = 1_000

/** An iteration is so many messages behind that it loses them. */
export function overflow (_core: Core, room: Room, behind: unknown[]): void {
  if (behind.length <= longestQueue) return // an earlier call has emptied it
  const frame: GapFrame = { type: 'gap', reason: 'slow', count: behind.splice(0).length, to: room.now.id! }
  room.receive(frame)
  if (room.now.gap !== frame) room.set({ gap: frame }) // the connection was lost meanwhile
}

/** Brings the list of members up to date. */
export function presence (_core: Core, room: Room, { state, join, leave, count }: Frame): void {
  const { members } = room.now
  const gone = new Set([...join ?? [], ...leave ?? []].map(({ session }) => session))
  room.set({ count, members: state ?? (members !== null && gone.size > 0 ? [...members.filter(({ session }) => !gone.has(session)), ...join ?? []] : null) })
}
