import type { ClientRoom, LogEntry, RoomOptions, RoomState, RoomsError, RoomStatus } from '../../types/client.ts'
import type { GapFrame } from '../../types/protocol.ts'
import { roomsError } from './error.ts'
import type { Frame } from './frame.ts'
import type { Link } from './link.ts'
import { isUpTo } from './position.ts'

/** Most messages that an iteration may be behind. */
const longestQueue = 1_000

/** Most rows of a log. */
const longestLog = 50

/** Time that a room gets messages over its old connection, after it has joined over the new one, in milliseconds. */
const longestMove = 2_000

/** Time until a reload that has failed is tried again, in milliseconds. */
const reloadAgain = 5_000

/** A message, or another frame of a client that is answered. */
export interface Request {
  readonly room: Room
  readonly text: string
  /** Sent again after a reconnect. */
  readonly isKept: boolean
  /** The connection that carries it; `undefined` while there is none. */
  link?: Link | undefined
  /** When it was sent last; `0` if it has not been. */
  sentAt: number
  settle (error?: RoomsError, data?: unknown): void
}

/** The parts of the client that a room uses. */
export interface RoomContext {
  /** Requests without an answer, by their `ref`. */
  readonly requests: Map<number, Request>
  readonly queue: number
  nextRef (): number
  get (topic: string): Promise<any>
  report (error: unknown): void
  /** A room has closed. */
  left (room: Room): void
}

/** A room as connections see it. */
export interface Room {
  readonly api: ClientRoom<any, any, any, any>
  readonly topic: string
  readonly isFollowed: boolean
  /** The position after which it joins. */
  readonly id: string | null
  /** The connection that carries it. */
  link: Link | undefined
  /** An attempt begins. */
  begin (transport: 'websocket' | 'event-stream'): void
  /** An attempt or a membership has ended. */
  lose (from: Link, status: RoomStatus, code: number | undefined, error: RoomsError | null): void
  /** A frame of the topic has come over a connection. */
  receive (frame: Frame, from: Link): void
  /** No attempt follows. */
  finish (error: RoomsError | null): void
}

/** Returns a name for a message that no other has. `crypto.randomUUID` does not exist on pages without TLS. */
const newMid = (): string => crypto.getRandomValues(new Uint32Array(5)).join('-')

export const createRoom = (context: RoomContext, topic: string, options: RoomOptions<any, any>): Room => {
  const { requests } = context
  const listeners: Record<string, Set<(value: any) => void>> = {}
  const rows: LogEntry[] = []
  let startedAt = 0
  /** Joins so far. */
  let joins = 0
  let isJoined = false
  let info: unknown
  /** Messages up to this position are known. */
  let floor = ''
  /** Frames that wait for a reload. */
  let held: Frame[] | undefined
  let reloading: Promise<void> | undefined
  let timer: ReturnType<typeof setTimeout> | undefined
  let moving: ReturnType<typeof setTimeout> | undefined
  /** A connection that takes over as soon as the old one has brought all messages up to its hello. */
  let next: { readonly link: Link, readonly hello: Frame, readonly frames: Frame[] } | undefined
  /** The current state, and the object that shows it. */
  const now: RoomState<any, any> = { status: 'connecting', transport: null, session: null, recovered: true, gap: null, members: null, count: null, error: null, last: null, id: options.since ?? null }
  let state: RoomState<any, any> | undefined

  const emit = (event: string, value?: unknown): void => {
    for (const listener of listeners[event] ?? []) {
      try {
        listener(value)
      } catch (error) {
        context.report(error)
      }
    }
  }
  const on = (event: string, listener: (value: any) => void): () => void => {
    const own = (value: any): void => listener(value)
    const all = listeners[event] ??= new Set()
    all.add(own)
    return () => { all.delete(own) }
  }
  const getSnapshot = (): RoomState<any, any> => state ??= { ...now }
  const set = (changes: Partial<RoomState<any, any>>): void => {
    const { status } = now
    Object.assign(now, changes)
    state = undefined
    if (status !== now.status) emit('status', getSnapshot())
    emit('change')
  }

  const ask = (frame: { type: string, mid?: string | undefined, [member: string]: unknown }): Promise<any> => new Promise((resolve, reject) => {
    const ref = context.nextRef()
    const isKept = !!frame.mid
    const text = JSON.stringify({ ...frame, ref })
    if (!isJoined && !(isKept && now.status !== 'closed' && [...requests.values()].filter(({ link }) => !link).length < context.queue)) throw roomsError('unsent', `"${topic}" is not joined`)
    requests.set(ref, {
      room,
      text,
      isKept,
      sentAt: 0,
      settle (error, data) {
        requests.delete(ref)
        if (error) reject(error)
        else resolve(data)
      }
    })
    if (isJoined) flush()
  })
  /** Sends the requests that no connection carries. */
  const flush = (): void => {
    for (const request of requests.values()) {
      if (request.room !== room || request.link) continue
      request.link = room.link
      request.sentAt = Date.now()
      room.link!.send(request.text, topic)
    }
  }

  /** Closes the row of the attempt. */
  const note = (code: number | null = null, reason: string | null = null): void => {
    const row = rows.at(-1)
    if (row && row.ended === null) Object.assign(row, { ended: Date.now() - startedAt, code, reason, id: now.id })
  }
  const tellGap = (gap: GapFrame): void => {
    set({ gap })
    emit('gap', gap)
    heal()
  }
  const heal = (): void => {
    if (options.reload) {
      reload().catch(error => {
        context.report(error)
        if (now.status !== 'closed') timer = setTimeout(heal, reloadAgain)
      })
    }
  }
  const reload = (): Promise<void> => reloading ??= (async () => {
    clearTimeout(timer)
    held = []
    try {
      let join
      do {
        join = joins
        const snapshot = await context.get(topic)
        const { id = '' } = snapshot
        // Another node may be behind the one that has sent the last message.
        if (id !== now.id && isUpTo(id, now.id ?? '')) throw roomsError('stale', `the snapshot of "${topic}" is older than its last message`)
        await options.reload?.(snapshot)
        if (id) {
          floor = id
          now.id = id
        }
      } while (join !== joins) // messages may be missing again
      set({ recovered: true, gap: null })
    } finally {
      const frames = held
      held = reloading = undefined
      for (const frame of frames) room.receive(frame, room.link!)
    }
  })()

  /** A connection has joined the topic, and carries the room from now on. */
  const take = (hello: Frame, from: Link): void => {
    const { recovered, id = now.id } = hello
    const old = room.link
    room.link = from
    if (old !== from) old?.retire()
    const isWhole = recovered ?? !joins
    joins++
    isJoined = true
    if (held) held = []
    floor = recovered ? now.id ?? '' : ''
    const row = rows.at(-1)
    if (row) row.joined ??= Date.now() - startedAt
    set({ status: 'open', error: null, session: hello.session, recovered: now.recovered && isWhole, id: recovered ? now.id : id })
    flush()
    if (info !== undefined) ask({ type: 'presence', info }).catch(context.report)
    if (!isWhole) heal()
  }
  /** Hands the room over to the connection that has joined meanwhile. */
  const move = (): void => {
    clearTimeout(moving)
    const { link, hello, frames } = next!
    next = undefined
    take({ ...hello, recovered: isUpTo(hello.id!, now.id ?? '') }, link)
    for (const frame of frames) room.receive(frame, link)
  }

  const room: Room = {
    topic,
    isFollowed: !!options.presence,
    get id () { return now.id },
    link: undefined,
    begin (transport) {
      startedAt = Date.now()
      rows.push({ at: new Date().toISOString(), transport, since: now.id, joined: null, ended: null, code: null, reason: null, id: null })
      if (rows.length > longestLog) rows.shift()
      set({ status: joins ? 'reconnecting' : 'connecting', transport })
    },
    lose (from, status, code, error) {
      for (const request of requests.values()) {
        if (request.room !== room || request.link !== from) continue
        if (request.isKept) request.link = undefined
        else request.settle(roomsError('unknown', `the connection was lost before "${topic}" had answered`))
      }
      if (from !== room.link) {
        if (next?.link === from) next = undefined
        if (isJoined) flush()
      } else if (next) move()
      else {
        isJoined = false
        note(code, error?.code)
        set({ status, error })
      }
    },
    receive (frame, from) {
      const { type, id } = frame
      const { link } = room
      if (type === 'hello') {
        // The old connection may bring messages that were published before the new one has joined.
        if (isJoined && link !== from && frame.recovered === false && id && id !== now.id && isUpTo(now.id ?? '', id)) {
          next = { link: from, hello: frame, frames: [] }
          moving = setTimeout(move, longestMove)
        } else take(frame, from)
      } else if (link !== from) next?.link === from && next.frames.push(frame)
      else if (!isJoined) return
      else if (held) held.push(frame)
      else if (type === 'gap') {
        if (frame.reason === 'reset') floor = ''
        tellGap(frame as unknown as GapFrame)
      } else {
        if (type === 'message' || type === 'end') {
          if (floor && id) {
            if (isUpTo(id, floor)) return
            floor = ''
          }
          set({ id: id ?? now.id, ...type === 'message' && { last: frame as any } })
        } else if (type === 'presence') {
          const { state, join = [], leave, count } = frame
          const gone = new Set([...join, ...leave ?? []].map(({ session }) => session))
          set({ count, members: state ?? ((frame.join ?? leave) && now.members ? [...now.members.filter(({ session }) => !gone.has(session)), ...join] : null) })
        } else if (type !== 'direct') return
        emit(type, frame)
        if (type === 'end') room.finish(null)
        else if (next && isUpTo(next.hello.id!, now.id ?? '')) move()
      }
    },
    finish (error) {
      if (now.status === 'closed') return
      clearTimeout(timer)
      clearTimeout(moving)
      isJoined = false
      note(error?.status, error?.code)
      set({ status: 'closed', error })
      for (const request of requests.values()) {
        if (request.room === room) request.settle(request.sentAt ? roomsError('unknown', `"${topic}" has not answered`) : roomsError('unsent', `"${topic}" is closed`))
      }
      context.left(room)
    },
    api: {
      topic,
      publish: (data, { key, mid = context.queue ? newMid() : undefined } = {}) => ask({ type: 'message', data, key, mid }),
      direct: (to, data) => ask({ type: 'direct', to, data }),
      answer (ref, data) { if (isJoined) room.link!.send(JSON.stringify({ type: 'ack', ref, data }), topic) },
      presence: value => ask({ type: 'presence', info: info = value }),
      history: page => ask({ type: 'history', ...page }),
      getSnapshot,
      subscribe: listener => on('change', listener),
      on,
      reload,
      log: () => rows.map(row => ({ ...row })),
      leave: () => room.finish(null),
      async * [Symbol.asyncIterator] () {
        const queue: any[] = []
        let wake = (): void => {}
        const stops = [
          on('message', message => {
            if (queue.push(message) > longestQueue) tellGap({ type: 'gap', reason: 'slow', count: queue.splice(0).length, to: message.id })
            wake()
          }),
          on('status', () => wake())
        ]
        try {
          for (;;) {
            while (queue.length) yield queue.shift()
            if (now.status === 'closed') {
              if (now.error) throw now.error
              return
            }
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
