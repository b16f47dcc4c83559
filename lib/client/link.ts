import type { RoomsError, WebSocketLike } from '../../types/client.ts'
import type { Core, Link, Past, Range, Target, Verdict } from './core.ts'
import { roomsError } from './error.ts'
import type { Frame } from './frame.ts'
import type { Platform } from './platform.ts'

/** Time for a connection to open and say hello, and for the answer to a ping, in milliseconds. */
const patience = 10_000

/** Time for the answer to a ping after a wake-up, in milliseconds. */
const wakePatience = 2_000

/** Longest time between two attempts, and the interval of pings if the server names none, in milliseconds. */
const longest = 20_000

/** Makes a connection, and connects. */
export const createLink = (core: Core, target: Target): Link => {
  const platform = globalThis as unknown as Platform
  let socket: WebSocketLike | undefined
  /** The attempt that is under way, or open. Events of all others are ignored. */
  let current: object | undefined
  let token: string | null | undefined
  let isOpen = false
  /** Whether a frame has come since the last check; `0`: a ping has not been answered yet. */
  let heard: boolean | 0 = false
  /** The attempts since the connection was last at rest. */
  let past: Past = {}
  /** Ends the attempt, or the wait for the answer to a ping; begins the next attempt. */
  let timer: ReturnType<typeof setTimeout>
  let ticker: ReturnType<typeof setInterval>

  const after = (milliseconds: number, act: () => void): void => {
    clearTimeout(timer)
    timer = setTimeout(act, milliseconds)
  }
  const isOffline = (): boolean => platform.navigator?.onLine === false
  const lose = (error: RoomsError | null = null): void => target.lose(core.isHidden() || isOffline() ? 'waiting' : 'reconnecting', error)
  /** Ends the current attempt, and does not tell the target. */
  const cut = (isDead?: boolean): void => {
    clearTimeout(timer)
    clearInterval(ticker)
    const old = socket
    current = socket = undefined
    isOpen = false
    // The closing handshake with a server that is gone would take 30 s in Node.js.
    if (isDead) old?.terminate?.()
    old?.close(1000)
  }

  const start = async (): Promise<void> => {
    cut()
    if (core.isHidden()) return lose()
    const attempt = current = {}
    let step = 'token'
    // The server may be on this machine, so an attempt is made offline, too.
    if (!isOffline()) target.begin(core.transport)
    after(patience, () => fail(step ? 0 : 1006, step))
    try {
      token = await core.token(past.expired)
      if (current !== attempt) return
      step = 'bad_url'
      socket = core.open(target.url(), token)
      step = ''
      socket.onmessage = ({ data }) => { if (current === attempt) receive(data) }
      socket.onclose = ({ code, reason }) => { if (current === attempt) fail(code, reason) }
      socket.onerror = () => {}
    } catch (cause) {
      if (current === attempt) fail(step === 'token' ? 0 : 4000, step, undefined, cause)
    }
  }

  /** An attempt has failed, or the connection is lost. */
  const fail = async (code: number, reason: string, range?: Range, cause?: unknown): Promise<void> => {
    const isUnexplained = code === 1006 && !isOpen // browsers hide the reason
    const known = roomsError(reason ||= 'lost', `${cause ?? reason}`, { status: code, cause })
    if (isOpen) lose(known)
    cut(code === 1006)
    const attempt = current = {}
    // Without a network the module that judges may be missing, too.
    const [error, wait = Math.random() * longest] = await core.http('judge', target, past, token, code, known, range, isUnexplained).catch((): Verdict => [known])
    if (current !== attempt) return
    current = undefined
    if (wait < 0) {
      link.close()
      target.finish(error)
    } else {
      after(wait, start)
      lose(error)
    }
  }

  /** Asks the server whether it is there. */
  const ping = (milliseconds: number): void => {
    heard = 0
    link.send('{"type":"ping","ref":0}')
    after(milliseconds, () => heard || fail(1006, 'silent', { max: 0 }))
  }

  const receive = (data: string): void => {
    let frame: Frame
    try {
      frame = JSON.parse(data) ?? {}
    } catch {
      return
    }
    heard = true
    const { type, error } = frame
    if (type === 'hello' && !isOpen) {
      clearTimeout(timer)
      isOpen = true
      past.expired = false
      core.http('warm').catch(() => {})
      ticker = setInterval(() => {
        past = {}
        if (heard) heard = false
        else if (heard === false) ping(patience)
      }, frame.heartbeat || longest)
    }
    if (type === 'bye' && !frame.topic) fail(frame.code, frame.reason, frame.retry)
    else if (type === 'error') core.report(roomsError(error.code, error.message, error))
    else if (type === 'expiring') core.task('renew', link)
    else if (type) target.receive(frame)
  }

  const link: Link = {
    get isOpen () { return isOpen },
    send: text => socket?.send(text),
    wake () {
      past.failures = 0
      if (isOpen) ping(wakePatience)
      else if (!current) start()
    },
    pause () {
      cut()
      lose()
    },
    close () {
      cut()
      core.links.delete(link)
    }
  }
  core.links.add(link)
  start()
  return link
}
