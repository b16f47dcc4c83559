import type { FetchResponse, GetOptions, RoomsError } from '../../types/client.ts'
import { roomsError } from './error.ts'
import type { Core, Range } from './link.ts'
import { platform } from './platform.ts'
import { isUpTo } from './position.ts'
import type { Room } from './room.ts'

/** Time for a token, and for an answer, in milliseconds. */
const patience = 10_000

/** The answer to the question why a WebSocket has not opened. */
export interface Finding {
  /** The close code that means the same. `0`: the server does not know the shared connection, though it answers. */
  readonly code: number
  readonly range?: Range | undefined
  readonly error: RoomsError
}

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
  const { options } = core
  try {
    token ??= await soon(core.token())
  } catch (cause) {
    throw roomsError('token', `${cause}`, { cause })
  }
  const href = url.href.replace(/^ws/, 'http')
  const init = { cache: 'no-store', signal: AbortSignal.any([core.signal, AbortSignal.timeout(patience)]), ...more }
  try {
    return await (options.fetch ?? platform.fetch)(href, { ...init, headers: { accept, ...token ? { authorization: `Bearer ${token}` } : {}, ...options.headers, ...headers } })
  } catch (cause) {
    throw roomsError('unreachable', `${url.origin} does not answer: ${cause}`, { cause })
  }
}

/**
 * Reads a JSON answer.
 * @throws RoomsError with the status and code of a refusal, `bad_response`
 */
export async function read (url: URL, response: FetchResponse): Promise<any> {
  const { ok, status, headers } = response
  let body: any
  try {
    body = JSON.parse(await response.text())
  } catch {}
  if (ok && body) return body
  const retryAfter = Number(headers.get('retry-after')) * 1_000
  const code = body?.code ?? (ok ? 'bad_response' : `http_${status}`)
  throw roomsError(code, `${url.pathname} was answered with HTTP status ${status}: ${body?.message ?? headers.get('content-type')}`, { status, ...retryAfter > 0 ? { retryAfter } : {} })
}

/** Reads the messages that a topic keeps. */
export async function get (core: Core, topic: string, query: GetOptions = {}): Promise<any> {
  let url
  try {
    url = core.url(topic, query)
  } catch (cause) {
    throw roomsError('bad_url', `${cause}`, { cause })
  }
  return read(url, await send(core, url, 'application/json'))
}

/** Asks why a WebSocket has not opened, because browsers hide the answer to a refused upgrade. */
export async function probe (core: Core, topic: string | undefined, token: string | null | undefined): Promise<Finding> {
  const url = core.url(topic, topic === undefined ? {} : { limit: 1 })
  try {
    await read(url, await send(core, url, 'application/json', { token }))
  } catch (caught) {
    const error = caught as RoomsError
    const { status = 0, retryAfter } = error
    const range = retryAfter === undefined ? undefined : { min: retryAfter, max: retryAfter * 2 }
    if (status === 401) return { code: 4301, error }
    if (status === 408 || status === 425 || status === 429 || status > 499) return { code: 4100, range, error }
    // The shared connection has no answer to a plain request: other routes may be there.
    if (topic === undefined && status > 0) return { code: 0, error }
    // Members may join a topic without the right to read the messages that it keeps.
    const isReadingRefused = status === 403 && error.message.endsWith(': history')
    if (!isReadingRefused) return { code: status > 399 ? 4000 : status > 0 ? 4100 : 1006, error }
  }
  return { code: topic === undefined ? 0 : 1006, error: roomsError('blocked', `${url.origin} answers requests, but WebSockets do not come through`) }
}

/**
 * Hands a snapshot of a topic to the application, which replaces its state. Returns the position at which the messages continue.
 * @throws RoomsError if there is none; what the application throws
 */
export async function reload (core: Core, room: Room): Promise<string | undefined> {
  for (;;) {
    const { joins } = room
    const snapshot = await get(core, room.topic)
    const { id } = snapshot
    // Another node may be behind the one that has sent the last message.
    if (id !== undefined && id !== room.id && isUpTo(id, room.id ?? '')) throw roomsError('stale', `the snapshot of "${room.topic}" is older than its last message`)
    await room.options.reload?.(snapshot)
    // Messages may be missing again.
    if (joins === room.joins) return id
  }
}
