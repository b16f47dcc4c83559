import type { Client, ClientRoom, RoomState, TopicSnapshot } from '../../types/client.ts'
import type { EndFrame, MessageFrame } from '../../types/protocol.ts'
import type { UseRoomOptions } from '../../types/react.ts'

/** Time for which a room stays joined after its last component has unmounted, in milliseconds: a component that mounts meanwhile continues it. */
const grace = 500

/** The state of a room, and what its components need besides. */
export interface RoomSnapshot extends RoomState<any, any> {
  readonly messages: readonly MessageFrame<any>[]
  readonly end: EndFrame | null
  readonly room: ClientRoom<any, any, any, any> | null
}

/** The options of one component. */
export interface HolderOptions {
  /** The position at which the messages begin; that of the snapshot if there is one. */
  readonly since: string | undefined
  readonly presence: boolean | undefined
  readonly keep: number
  readonly snapshot: UseRoomOptions<any, any>['snapshot']
  /** Whether the component has a function `reload`. */
  readonly reloads: boolean
  reload (snapshot: TopicSnapshot<any, any>): unknown
}

/** One component: the same object for as long as it is mounted. */
export interface Holder {
  /** The room that it holds, or held last, and its options there. */
  store?: RoomStore
  options?: HolderOptions
}

export interface RoomStore {
  getSnapshot (): RoomSnapshot
  /** Keeps the room joined, and calls a listener after its changes. Returns a function that stops it. */
  hold (holder: Holder, options: HolderOptions, listener: () => void): () => void
  /** Joins the room again if it is closed. */
  rejoin (): void
}

/** Returns the messages of a snapshot as they would have arrived. */
export function framesOf (snapshot: UseRoomOptions<any, any>['snapshot']): MessageFrame<any>[] {
  return snapshot?.messages.map(message => ({ type: 'message' as const, ...message })) ?? []
}

/** The rooms of components, by client and topic. Clients that are no longer used take theirs with them. */
const stores = new WeakMap<Client<any>, Map<string, RoomStore>>()

/** Returns the room of a topic; `undefined` if no component holds it. */
export function findStore (client: Client<any>, topic: string): RoomStore | undefined {
  return stores.get(client)?.get(topic)
}

/** Returns the room of a topic for a component that is about to hold it. */
export function openStore (client: Client<any>, topic: string): RoomStore {
  let rooms = stores.get(client)
  if (rooms === undefined) stores.set(client, rooms = new Map())
  let store = rooms.get(topic)
  if (store === undefined) {
    const all = rooms
    rooms.set(topic, store = createStore(client, topic, () => { all.delete(topic) }))
  }
  return store
}

/** The options that a room is joined with. */
interface Joined {
  readonly since: string | undefined
  readonly presence: boolean
  readonly reloads: boolean
}

function createStore (client: Client<any>, topic: string, forget: () => void): RoomStore {
  const holders = new Map<Holder, { options: HolderOptions, listener: () => void }>()
  let room: ClientRoom<any, any, any, any>
  let joined: Joined | undefined
  let stops: (() => void)[] = []
  /** Most messages that any component has asked for. */
  let keep = 0
  let list: MessageFrame<any>[] = []
  /** The list as components have it; `undefined` if it has changed since. */
  let messages: readonly MessageFrame<any>[] | undefined
  let end: EndFrame | null = null
  /** Messages may be missing in the list, though the room has recovered. */
  let isIncomplete = false
  let snapshot: RoomSnapshot | undefined
  let leaving: ReturnType<typeof setTimeout>
  let telling: ReturnType<typeof setTimeout> | undefined

  /** Tells the components in a task of its own, so that a burst of messages is rendered once. */
  const change = (): void => {
    snapshot = undefined
    telling ??= setTimeout(() => {
      telling = undefined
      for (const { listener } of [...holders.values()]) listener()
    })
  }
  const setList = (frames: MessageFrame<any>[]): void => {
    if (frames.length > keep) frames.splice(0, frames.length - keep)
    list = frames
    messages = undefined
    change()
  }
  const reload = async (fetched: TopicSnapshot<any, any>): Promise<void> => {
    // A topic that keeps no messages has no position, and nothing that could replace the list.
    if (fetched.id === undefined) isIncomplete = true
    else setList(framesOf(fetched))
    await Promise.all([...holders.values()].map(({ options }) => options.reload(fetched)))
  }
  /** Joins, and leaves first if it has joined. It continues behind the last message if it begins at the same position as before. */
  const join = (wanted: Joined): void => {
    const { id, recovered } = joined?.since === wanted.since && joined !== undefined ? room.getSnapshot() : { id: null, recovered: undefined }
    leave()
    joined = wanted
    if (recovered === undefined) {
      isIncomplete = false
      setList(framesOf([...holders.values()].find(({ options }) => options.since === wanted.since)?.options.snapshot))
    } else isIncomplete ||= !recovered
    end = null
    room = client.room(topic, { since: id ?? wanted.since, presence: wanted.presence, ...wanted.reloads && { reload } })
    stops = [
      room.subscribe(change),
      room.on('message', message => {
        list.push(message)
        setList(list)
      }),
      room.on('end', frame => {
        end = frame
        change()
      })
    ]
    change()
  }
  const leave = (): void => {
    if (joined === undefined) return
    for (const stop of stops) stop()
    room.leave()
  }
  const wantedBy = (): Joined => {
    const all = [...holders.values()].map(({ options }) => options)
    const since = all.map(({ since }) => since).find(position => position !== undefined)
    return { since, presence: all.some(({ presence }) => presence), reloads: since !== undefined || all.some(({ reloads }) => reloads) }
  }

  const store: RoomStore = {
    getSnapshot () {
      messages ??= [...list]
      if (snapshot === undefined) {
        const state = room.getSnapshot()
        snapshot = { ...state, recovered: state.recovered && !isIncomplete, messages, end, room }
      }
      return snapshot
    },
    hold (holder, options, listener) {
      clearTimeout(leaving)
      const isChanged = holder.store === store && (holder.options!.since !== options.since || holder.options!.presence !== options.presence)
      holder.store = store
      holder.options = options
      keep = Math.max(keep, options.keep)
      holders.set(holder, { options, listener })
      const wanted = wantedBy()
      const isMore = joined === undefined || (wanted.presence && !joined.presence) || (wanted.reloads && !joined.reloads)
      if (isMore || (isChanged && (wanted.since !== joined!.since || wanted.presence !== joined!.presence))) join(wanted)
      return () => {
        holders.delete(holder)
        if (holders.size > 0) return
        leaving = setTimeout(() => {
          clearTimeout(telling)
          leave()
          forget()
        }, grace)
      }
    },
    rejoin () {
      if (room.getSnapshot().status === 'closed') join(wantedBy())
    }
  }
  return store
}
