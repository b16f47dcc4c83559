import type { LogEntry, RoomOptions, RoomState, RoomsError } from '../../types/client.ts'
import type { Core, Room } from './core.ts'
import { roomsError } from './error.ts'

/** Most messages that an iteration may be behind. */
const longestQueue = 1_000

/** A frame that is to be answered. */
interface Request {
  readonly text: string
  /** Present: sent again after a reconnect. */
  readonly mid: string | undefined
  /** The end of the wait for an answer; `null` if the connection was lost; `undefined` if it was not sent. */
  timer?: ReturnType<typeof setTimeout> | null
  settle (error: RoomsError | undefined, data?: unknown): void
}

/** Returns a name for a message that no other has. `crypto.randomUUID` does not exist on pages without TLS. */
const newMid = (): string => crypto.getRandomValues(new Uint32Array(5)).join('-')

export const createRoom = (core: Core, topic: string, options: RoomOptions<any, any>): Room => {
  let { queue = 0 } = core.options
  const requests = new Map<number, Request>()
  const listeners = new Set<readonly [string, (value: any) => void]>()
  const rows: LogEntry[] = []
  let refs = 0
  let isJoined = false
  let info: unknown
  let now: RoomState<any, any> = { status: 'connecting', transport: null, session: null, recovered: true, gap: null, members: null, count: null, error: null, last: null, id: options.since ?? null }

  const emit = (event: string, value?: unknown): void => {
    for (const [name, listener] of listeners) {
      try {
        if (name === event) listener(value)
      } catch (error) {
        core.report(error)
      }
    }
  }
  const on = (event: string, listener: (value: any) => void): () => void => {
    const entry = [event, listener] as const
    listeners.add(entry)
    return () => { listeners.delete(entry) }
  }
  const getSnapshot = (): RoomState<any, any> => now
  const set = (changes: Partial<RoomState<any, any>>): void => {
    const old = now.status
    now = { ...now, ...changes }
    const { status, transport, error, id } = now
    if (changes.status) {
      rows.push({ at: new Date(), status, transport, error, id })
      if (rows[50]) rows.shift() // a log has 50 rows at most
    }
    if (status !== old) emit('status', now)
    emit('change')
  }
  /** The error of a request without an answer. */
  const unanswered = (isSent?: boolean): RoomsError => isSent ? roomsError('unknown', 'no answer') : roomsError('unsent', 'no connection')

  /** Sends the requests that were not sent over this connection. */
  const flush = (): void => {
    for (const request of requests.values()) {
      if (request.timer) continue
      request.timer = setTimeout(request.settle, 30_000, unanswered(true)) // the longest time for an answer
      room.link!.send(request.text)
    }
  }
  const ask = (frame: { readonly type: string, readonly mid?: string | undefined, readonly [member: string]: unknown }): Promise<any> => new Promise((resolve, reject) => {
    const ref = ++refs
    const { mid } = frame
    if (!isJoined && (!mid || requests.size >= queue)) throw unanswered()
    const request: Request = {
      text: JSON.stringify({ ...frame, ref }),
      mid,
      settle (error, data) {
        clearTimeout(request.timer!)
        requests.delete(ref)
        if (error) reject(error)
        else resolve(data)
      }
    }
    requests.set(ref, request)
    if (isJoined) flush()
  })
  /** Ends the requests that cannot be sent again; all if the room is closed. */
  const drop = (isAll?: boolean): void => {
    isJoined = false
    for (const request of requests.values()) {
      clearTimeout(request.timer!)
      if (request.timer) request.timer = null
      if (isAll || !request.mid) request.settle(unanswered(request.timer === null))
    }
  }

  const room: Room = {
    topic,
    options,
    get now () { return now },
    requests,
    set,
    url () {
      const url = core.url(topic)
      if (now.id) url.searchParams.set('since', now.id)
      if (options.presence) url.searchParams.set('presence', '1')
      return url
    },
    begin: transport => set({ status: now.session ? 'reconnecting' : 'connecting', transport }),
    lose (status, error) {
      drop()
      set({ status, error })
    },
    receive (frame) {
      const { type, id = now.id, recovered } = frame
      if (type === 'ack') {
        const { error, data } = frame
        requests.get(frame.ref as number)?.settle(error && roomsError(error.code, error.message, error), data)
      } else if (type === 'hello') {
        const isWhole = recovered ?? !now.session
        isJoined = true
        set({ status: 'open', error: null, session: frame.session, recovered: now.recovered && isWhole, id })
        flush()
        if (info !== undefined) ask({ type: 'presence', info }).catch(core.report)
        if (!isWhole) core.task('gap', room)
      } else if (!isJoined || room.filter?.(frame)) { /* its time is over, or has not come */ } else {
        if (type === 'message') set({ last: frame as any, id })
        if (type === 'end') set({ id })
        if (type === 'gap') set({ gap: frame as any })
        if (type === 'presence' || type === 'gap') core.task(type, room, frame)
        emit(type, frame)
        if (type === 'end') room.finish(null)
      }
    },
    finish (error) {
      if (now.status === 'closed') return
      queue = 0
      clearTimeout(room.timer)
      set({ status: 'closed', error })
      drop(true)
      core.rooms.delete(topic)
      room.link?.close()
    },
    api: {
      topic,
      publish: (data, { key, mid = queue ? newMid() : undefined } = {}) => ask({ type: 'message', data, key, mid }),
      direct: (to, data) => ask({ type: 'direct', to, data }),
      answer: (...values) => core.task('answer', room, now.session, ...values),
      presence (value) {
        info = value
        return ask({ type: 'presence', info })
      },
      history: page => ask({ type: 'history', ...page }),
      getSnapshot,
      subscribe: listener => on('change', listener),
      on,
      reload: () => core.http('reload', room),
      log: () => [...rows],
      leave: () => room.finish(null),
      async * [Symbol.asyncIterator] () {
        const behind: any[] = []
        let { last } = now
        let wake: (() => void) | undefined
        const stop = on('change', () => {
          if (last !== now.last) {
            last = now.last
            if (behind.push(last) > longestQueue) core.task('overflow', room, behind)
          }
          wake?.()
        })
        try {
          for (;;) {
            while (behind[0]) yield behind.shift()
            if (now.status === 'closed') {
              if (now.error) throw now.error
              return
            }
            await new Promise<void>(resolve => { wake = resolve })
          }
        } finally {
          stop()
        }
      }
    }
  }
  return room
}
