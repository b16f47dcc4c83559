import type { RoomsError } from '../../types/client.ts'
import type { Frame } from './frame.ts'
import type { Core, Link, Place, Range, Room } from './core.ts'
import { behind } from './position.ts'
import { closeBehaviour } from '../protocol/close-codes.ts'

/** The range of times until a room is joined again, if the server does not name one, in milliseconds. */
const defaultRange: Range = { min: 500, max: 20_000 }

/** The connection that several rooms share. */
export interface Shared {
  /** Joins a room, unless it is there. A room with a connection of its own moves when it has joined. */
  add (room: Room): void
}

/** Makes the shared connection, which exists as long as rooms use it. `undefined` if there is none: by default at the root of a host. */
export function createShared (core: Core): Shared | undefined {
  const { multiplex } = core.options
  const base = (): URL => {
    const made = core.url('')
    made.pathname = typeof multiplex === 'string' ? multiplex : made.pathname.replace(/\/$/, '')
    return made
  }
  try {
    if (multiplex === undefined && base().pathname === '/') return undefined
  } catch {} // each room tells of a wrong URL
  const rooms = new Map<string, Room>()
  /** Begin the next attempts of single rooms, by topic. A connection that opens joins all rooms at once. */
  const timers = new Map<string, ReturnType<typeof setTimeout>>()
  let link: Link | undefined
  let wasOpen = false
  let transport: 'websocket' | 'event-stream' = 'websocket'

  const mine = (): Room[] => [...rooms.values()].filter(room => room.link !== undefined && places.has(room.link))
  /** The connections of the rooms, each of which adds its topic to the frames. */
  const places = new WeakSet<Place>()
  const write = (frame: object): void => link!.send(JSON.stringify(frame))
  const join = ({ topic, now: { id }, options }: Room): void => write({ type: 'join', topic, since: id ?? undefined, presence: options.presence === true ? true : undefined, ref: 0 })

  const placeOf = (room: Room): Place => {
    const { topic } = room
    const name = JSON.stringify(topic)
    const place: Place = {
      // `type` is the first member, and its value has no comma.
      send: text => link!.send(text.replace(',', () => `,"topic":${name},`)),
      close: () => remove(room)
    }
    places.add(place)
    return place
  }

  const remove = ({ topic }: Room): void => {
    clearTimeout(timers.get(topic))
    if (!rooms.delete(topic)) return
    if (rooms.size === 0) {
      link?.close()
      link = undefined
    } else if (link?.isOpen === true) write({ type: 'leave', topic, ref: 0 })
  }

  /** The server has refused a room, or ended its membership. */
  const refuse = (room: Room, code: number, range: Range = defaultRange, error: RoomsError): void => {
    if (!mine().includes(room)) rooms.delete(room.topic) // its own connection goes on
    else if (code === 1000) {
      room.lose('reconnecting', error)
      core.task('complete', room).then(isWhole => {
        if (isWhole === true) room.finish(null)
        else later(room, range)
      })
    } else if (closeBehaviour(code) === 'stop') room.finish(error)
    else {
      room.lose('reconnecting', error)
      later(room, range)
    }
  }

  /** Joins a room after a random time. */
  const later = (room: Room, { min = defaultRange.min!, max }: Range): void => {
    const { topic } = room
    clearTimeout(timers.get(topic))
    if (rooms.get(topic) !== room) return // it has left meanwhile
    timers.set(topic, setTimeout(() => {
      room.begin(transport)
      if (link?.isOpen === true) join(room)
    }, min + Math.random() * (max - min)))
  }

  /** The server has accepted a room. It moves here, unless its own connection has messages or answers to come. */
  const accept = (room: Room, hello: Frame): void => {
    const old = room.link!
    if (!places.has(old)) {
      if (old.isOpen && (hello.recovered !== true || room.requests.size > 0)) return remove(room)
      room.link = placeOf(room)
      old.close()
      // The old connection may have brought messages that the new one brings again.
      const { id } = room.now
      room.filter = behind(room, id ?? '')
      hello = { ...hello, ...id === null ? {} : { id } }
    }
    room.receive(hello)
  }

  const target = {
    url: base,
    begin (given: 'websocket' | 'event-stream') {
      transport = given
      for (const room of mine()) room.begin(given)
    },
    lose (...values: Parameters<Room['lose']>) {
      for (const room of mine()) room.lose(...values)
    },
    receive (frame: Frame) {
      const { type, topic, code, reason, error, close = code, retry } = frame
      if (type === 'hello' && topic === undefined) {
        wasOpen = true
        for (const room of rooms.values()) {
          clearTimeout(timers.get(room.topic))
          join(room)
        }
        return
      }
      const room = rooms.get(topic!)
      if (room === undefined) return
      if (close !== undefined) refuse(room, close, retry, error === undefined ? core.roomsError(reason, `closed: ${code} ${reason}`, { status: code }) : core.roomsError(error.code, error.message, { ...error, status: close }))
      else if (type === 'hello') accept(room, frame)
      else if (places.has(room.link!)) room.receive(frame)
    },
    finish (error: RoomsError | null) {
      const all = mine()
      for (const timer of timers.values()) clearTimeout(timer)
      rooms.clear()
      link = undefined
      const isOver = wasOpen && error?.code !== 'blocked'
      for (const room of all) {
        if (isOver) room.finish(error)
        else room.link = undefined
      }
      // A server that refuses the connection may know the topics, and other requests may come through.
      if (!isOver) core.place(true)
    }
  }

  return {
    add (room) {
      if (rooms.has(room.topic)) return
      rooms.set(room.topic, room)
      const isNew = room.link?.isOpen !== true
      if (isNew) {
        room.link?.close()
        room.link = placeOf(room)
      } else room.api.on('status', ({ status }) => { if (status === 'closed' && rooms.get(room.topic) === room) remove(room) }) // it has left before it has moved
      if (link === undefined) link = core.createLink(core, target)
      else if (isNew) room.begin(transport)
      if (link.isOpen) join(room)
    }
  }
}
