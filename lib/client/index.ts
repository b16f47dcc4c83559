import type { Client, ClientOptions } from '../../types/client.ts'
import type { OpenTopics } from '../../types/topics.ts'
import { createLink, type Core, type Link } from './link.ts'
import { platform } from './platform.ts'
import { createRoom, type Room } from './room.ts'

export type * from '../../types/client.ts'
export type { DirectFrame, EndFrame, EndReason, GapFrame, KeptEnd, KeptMessages, Member, MessageFrame, PresenceFrame, Ref, StoredMessage } from '../../types/protocol.ts'
export type { Info, Message, Publish, TopicMap, TopicName } from '../../types/topics.ts'

/**
 * Makes a client of one server. It connects when the first room is made.
 * @typeParam T - the topic map of the server, by `import type`
 */
export const createClient = <T = OpenTopics>(options: ClientOptions): Client<T> => {
  const { multiplex, onerror = (error: unknown) => console.error(error), token } = options
  const rooms = new Map<string, Room>()
  const links = new Set<Link>()
  const ended = new AbortController()
  const { signal } = ended
  let shared: Link | undefined
  let canShare: unknown
  let isPaused = false

  const core: Core = {
    options,
    signal,
    until: 0,
    isHidden: () => isPaused || platform.document?.visibilityState === 'hidden',
    url (topic, query) {
      const url = new URL(options.url, platform.location?.href)
      if (topic) url.pathname = url.pathname.replace(/\/?$/, `/${encodeURIComponent(topic)}`)
      else url.pathname = multiplex || url.pathname
      for (const [name, value] of Object.entries(query ?? {})) if (value) url.searchParams.set(name, value)
      return url
    },
    token: async expired => typeof token === 'function' ? token({ expired: !!expired }) : token,
    report (error) {
      try {
        onerror(error)
      } catch {}
    },
    http: () => import('./http.ts'),
    closed (link, isUnknown) {
      links.delete(link)
      if (shared === link) shared = undefined
      if (isUnknown) {
        canShare = false
        for (const room of link.rooms.values()) if (room.link === link) room.link = undefined
        place()
      }
    },
    left (room) {
      rooms.delete(room.topic)
      for (const link of links) if (link.rooms.has(room.topic)) link.remove(room)
    }
  }

  const connect = (own?: Room): Link => {
    const link = createLink(core, own)
    links.add(link)
    return link
  }
  /** Gives each room a connection: one room alone has its own, several share one. */
  const place = (): void => {
    const isShared = canShare && Date.now() > core.until && (shared || rooms.size > 1)
    for (const room of rooms.values()) {
      if (isShared) {
        shared ??= connect()
        if (shared.rooms.has(room.topic)) continue
        if (!room.link?.isOpen) {
          room.link?.close()
          room.link = shared
        }
        shared.add(room)
      } else if (!room.link) {
        room.link = connect(room)
        room.link.add(room)
      }
    }
  }

  try {
    canShare = multiplex ?? core.url().pathname.length > 1
    core.until = +platform.sessionStorage!.getItem('fastify-rooms')!
  } catch {} // a wrong URL is told by each room; there may be no storage

  // Events of the document reach the window in the capture phase. A page with a WebSocket does not enter the back/forward cache.
  for (const type of ['online', 'pageshow', 'pagehide', 'visibilitychange', 'freeze', 'resume']) {
    platform.addEventListener?.(type, () => {
      isPaused = type === 'pagehide' || type === 'freeze'
      for (const link of links) {
        if (isPaused) link.pause()
        else if (!core.isHidden()) link.wake()
      }
    }, { capture: true, signal })
  }

  return {
    room (topic: any, roomOptions = {}) {
      let room = rooms.get(topic)
      if (!room) {
        room = createRoom(core, topic, roomOptions)
        rooms.set(topic, room)
        if (signal.aborted) room.finish(null)
        else queueMicrotask(place)
      }
      return room.api as any
    },
    get: async (topic, query) => (await core.http()).get(core, topic, query),
    close () {
      ended.abort()
      for (const room of rooms.values()) room.finish(null)
    }
  }
}
