import type { ClientRoom, LogEntry, RoomOptions, RoomState, RoomsError, RoomStatus } from '../../types/client.ts'
import type { GapFrame } from '../../types/protocol.ts'
import { roomsError } from './error.ts'
import type { Frame } from './frame.ts'
import type { Core, Link } from './link.ts'
import { isUpTo } from './position.ts'

/** Most messages that an iteration may be behind. */
const longestQueue = 1_000

/** Most rows of a log. */
const longestLog = 50

/** Time for the answer to a frame, in milliseconds. */
const longestAnswer = 30_000

/** Time until a reload that has failed is tried again, in milliseconds. */
const reloadAgain = 5_000

/** A frame that is to be answered. */
interface Request {
  readonly text: string
  /** Sent again after a reconnect. */
  readonly isKept: boolean
  wasSent: boolean
  /** The end of the wait for an answer; `undefined` while it is not sent. */
  timer?: ReturnType<typeof setTimeout> | undefined
  settle (error: RoomsError | undefined, data?: unknown): void
}

/** A room as its connections see it. */
export interface Room {
  readonly api: ClientRoom<any, any, any, any>
  readonly topic: string
  readonly options: RoomOptions<any, any>
  /** The position after which it joins. */
  readonly id: string | null
  /** Joins so far. */
  readonly joins: number
  /** Whether requests wait for an answer. */
  readonly isBusy: boolean
  /** The connection that carries it. */
  link?: Link | undefined
  /** An attempt begins. */
  begin (transport: 'websocket' | 'event-stream'): void
  /** An attempt or a membership has ended. */
  lose (status: RoomStatus, error: RoomsError | null): void
  /** Calls a function after a time, unless the room closes. */
  later (milliseconds: number, act: () => void): void
  /** A frame of the topic has come. */
  receive (frame: Frame): void
  /** No attempt follows. */
  finish (error: RoomsError | null): void
}

/** Returns a name for a message that no other has. `crypto.randomUUID` does not exist on pages without TLS. */
const newMid = (): string => crypto.getRandomValues(new Uint32Array(5)).join('-')

export const createRoom = (core: Core, topic: string, options: RoomOptions<any, any>): Room => {
  const { queue = 0 } = core.options
  const requests = new Map<number, Request>()
  const listeners: Record<string, Set<(value: any) => void>> = {}
  const rows: LogEntry[] = []
  let refs = 0
  let joins = 0
  let isJoined = false
  let info: unknown
  /** Messages up to this position are known. */
  let floor = ''
  /** Frames that wait for a reload. */
  let held: Frame[] | undefined
  let reloading: Promise<void> | undefined
  let timer: ReturnType<typeof setTimeout>
  /** The current state, and the object that shows it. */
  const now: RoomState<any, any> = { status: 'connecting', transport: null, session: null, recovered: true, gap: null, members: null, count: null, error: null, last: null, id: options.since ?? null }
  let state: RoomState<any, any> | undefined

  const emit = (event: string, value?: unknown): void => {
    for (const listener of listeners[event] ?? []) {
      try {
        listener(value)
      } catch (error) {
        core.report(error)
      }
    }
  }
  const on = (event: string, listener: (value: any) => void): () => void => {
    const all = listeners[event] ??= new Set()
    const own = (value: any): void => listener(value)
    all.add(own)
    return () => { all.delete(own) }
  }
  const getSnapshot = (): RoomState<any, any> => {
    state ??= { ...now }
    return state
  }
  const set = (changes: Partial<RoomState<any, any>>): void => {
    const { status } = now
    Object.assign(now, changes)
    state = undefined
    if (changes.status) {
      const { transport, error, id } = now
      rows.push({ at: new Date().toISOString(), status: changes.status, transport, code: error?.status, reason: error?.code, id })
      if (rows.length > longestLog) rows.shift()
      if (status !== now.status) emit('status', getSnapshot())
    }
    emit('change')
  }

  /** Sends the requests that were not sent over this connection. */
  const flush = (): void => {
    for (const request of requests.values()) {
      if (request.timer) continue
      request.timer = setTimeout(request.settle, longestAnswer, roomsError('unknown', 'no answer'))
      request.wasSent = true
      room.link!.send(request.text, topic)
    }
  }
  const ask = (frame: { readonly type: string, readonly mid?: string | undefined, readonly [member: string]: unknown }): Promise<any> => new Promise((resolve, reject) => {
    const ref = ++refs
    const text = JSON.stringify({ ...frame, ref })
    const isKept = !!frame.mid
    if (!isJoined && (now.status === 'closed' || !isKept || requests.size >= queue)) throw roomsError('unsent', 'not connected')
    const request: Request = {
      text,
      isKept,
      wasSent: false,
      settle (error, data) {
        clearTimeout(request.timer)
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
      clearTimeout(request.timer)
      request.timer = undefined
      if (isAll || !request.isKept) request.settle(roomsError(request.wasSent ? 'unknown' : 'unsent', 'connection lost'))
    }
  }

  const tellGap = (gap: GapFrame): void => {
    set({ gap })
    emit('gap', gap)
    heal()
  }
  const heal = (): void => {
    if (options.reload) {
      reload().catch(error => {
        core.report(error)
        room.later(reloadAgain, heal)
      })
    }
  }
  const reload = (): Promise<void> => {
    if (!reloading) {
      held = []
      reloading = core.http().then(http => http.reload(core, room)).then(id => {
        if (id) floor = now.id = id
        set({ recovered: true, gap: null })
      }).finally(() => {
        const frames = held!
        held = reloading = undefined
        frames.forEach(room.receive)
      })
    }
    return reloading
  }

  const room: Room = {
    topic,
    options,
    get id () { return now.id },
    get joins () { return joins },
    get isBusy () { return requests.size > 0 },
    begin: transport => set({ status: joins ? 'reconnecting' : 'connecting', transport }),
    lose (status, error) {
      drop()
      set({ status, error })
    },
    later (milliseconds, act) {
      clearTimeout(timer)
      if (now.status !== 'closed') timer = setTimeout(act, milliseconds)
    },
    receive (frame) {
      const { type, id = now.id, recovered } = frame
      if (type === 'ack') {
        const { error, data } = frame
        requests.get(frame.ref as number)?.settle(error && roomsError(error.code, error.message, error), data)
      } else if (type === 'hello') {
        const isWhole = recovered ?? !joins
        joins++
        isJoined = true
        if (held) held = []
        floor = recovered ? now.id! : ''
        set({ status: 'open', error: null, session: frame.session, recovered: now.recovered && isWhole, id: floor || id })
        flush()
        if (info !== undefined) ask({ type: 'presence', info }).catch(core.report)
        if (!isWhole) heal()
      } else if (held) held.push(frame)
      else if (!isJoined) { /* the membership has ended */ } else if (type === 'gap') {
        floor = ''
        tellGap(frame as unknown as GapFrame)
      } else {
        if (type === 'message' || type === 'end') {
          if (floor && id && isUpTo(id, floor)) return
          floor = ''
          now.id = id
        }
        if (type === 'message') set({ last: frame as any })
        else if (type === 'presence') {
          const { state, join = [], leave = [], count } = frame
          const gone = [...join, ...leave].map(({ session }) => session)
          set({ count, members: state ?? (gone[0] && now.members ? [...now.members.filter(({ session }) => !gone.includes(session)), ...join] : null) })
        }
        emit(type, frame)
        if (type === 'end') room.finish(null)
      }
    },
    finish (error) {
      if (now.status === 'closed') return
      clearTimeout(timer)
      set({ status: 'closed', error })
      drop(true)
      core.left(room)
    },
    api: {
      topic,
      publish: (data, { key, mid = queue ? newMid() : undefined } = {}) => ask({ type: 'message', data, key, mid }),
      direct: (to, data) => ask({ type: 'direct', to, data }),
      answer (ref, data) {
        if (isJoined) room.link!.send(JSON.stringify({ type: 'ack', ref, data }), topic)
      },
      presence (value) {
        info = value
        return ask({ type: 'presence', info })
      },
      history: page => ask({ type: 'history', ...page }),
      getSnapshot,
      subscribe: listener => on('change', listener),
      on,
      reload,
      log: () => [...rows],
      leave: () => room.finish(null),
      async * [Symbol.asyncIterator] () {
        const behind: any[] = []
        let wake: (() => void) | undefined
        const stops = [
          on('message', message => {
            if (behind.push(message) > longestQueue) tellGap({ type: 'gap', reason: 'slow', count: behind.splice(0).length, to: message.id })
          }),
          on('change', () => wake?.())
        ]
        try {
          for (;;) {
            while (behind[0]) yield behind.shift()
            if (now.error && now.status === 'closed') throw now.error
            if (now.status === 'closed') return
            await new Promise<void>(resolve => { wake = resolve })
          }
        } finally {
          for (const stop of stops) stop()
        }
      }
    }
  }
  return room
}
