import type { Client, ClientOptions, RoomsError } from '../../types/client.ts'
import type { OpenTopics } from '../../types/topics.ts'
import { roomsError } from './error.ts'
import { createLink, type Link, type LinkContext } from './link.ts'
import { platform } from './platform.ts'
import { createRequests } from './requests.ts'
import { createRoom, type Request, type Room, type RoomContext } from './room.ts'

export type * from '../../types/client.ts'
export type { DirectFrame, EndFrame, EndReason, GapFrame, KeptEnd, KeptMessages, Member, MessageFrame, PresenceFrame, Ref, StoredMessage } from '../../types/protocol.ts'
export type { Info, Message, Publish, TopicMap, TopicName } from '../../types/topics.ts'

/** Time for which event streams take the place of WebSockets that do not come through, in milliseconds. */
const streamingTime = 300_000

const storageKey = 'fastify-rooms'

/** Base64url of a text in UTF-8: the characters of base64 that a subprotocol cannot have are replaced. */
const base64url = (text: string): string => btoa(String.fromCharCode(...new TextEncoder().encode(text))).replace(/[+/=]/g, character => ({ '+': '-', '/': '_' })[character] ?? '')

/**
 * Makes a client of one server. It connects when the first room is made.
 * @typeParam T - the topic map of the server, by `import type`
 */
export const createClient = <T = OpenTopics>(options: ClientOptions): Client<T> => {
  const { multiplex, onerror = (error: unknown) => console.error(error) } = options
  const rooms = new Map<string, Room>()
  const links = new Set<Link>()
  const requests = new Map<number, Request>()
  const ended = new AbortController()
  const { url, prefix, token, send, get } = createRequests(options, ended.signal)
  const WebSocket = options.WebSocket ?? platform.WebSocket
  let shared: Link | undefined
  let canShare = multiplex !== false
  let isPaused = false
  let streamsUntil = 0
  let refs = 0

  const report = (error: unknown): void => {
    try {
      onerror(error)
    } catch {}
  }
  const topicPath = (topic: string): string => `${prefix()}/${encodeURIComponent(topic)}`
  const pathOf = (room: Room | undefined): string => room ? topicPath(room.topic) : multiplex || prefix()

  const context: LinkContext & RoomContext = {
    requests,
    queue: options.queue ?? 0,
    canRenew: typeof options.token === 'function',
    nextRef: () => ++refs,
    token,
    report,
    get: topic => get(url(topicPath(topic))),
    away: () => isPaused || platform.document?.visibilityState === 'hidden' ? 'hidden' : platform.navigator?.onLine === false ? 'offline' : undefined,
    isStreaming () {
      try {
        streamsUntil = +platform.sessionStorage!.getItem(storageKey)! || streamsUntil
      } catch {} // there is none, or the page may not use it
      return !WebSocket || Date.now() < streamsUntil
    },
    stream () {
      streamsUntil = Date.now() + streamingTime
      try {
        platform.sessionStorage!.setItem(storageKey, `${streamsUntil}`)
      } catch {}
    },
    async open (room, isStream, token) {
      const target = url(pathOf(room), room && { since: room.id, presence: room.isFollowed ? 1 : undefined })
      if (isStream) return (await import('./event-stream.ts')).openEventStream(send, target, token)
      try {
        const socket = new WebSocket!(target.href.replace(/^http/, 'ws'), ['rooms.v1', ...token ? [`bearer.${base64url(token)}`] : []])
        socket.onerror = () => {}
        return socket
      } catch (cause) {
        throw roomsError('bad_url', `no WebSocket can be made of ${target.href}`, { cause })
      }
    },
    async probe (room, token) {
      let fault: RoomsError
      try {
        await get(url(pathOf(room), room && { limit: 1 }), token)
        fault = roomsError('blocked', 'the server answers, but WebSockets do not come through')
      } catch (error) {
        fault = error as RoomsError
      }
      return fault
    },
    isAbandoned (link, { code, status = 0 }) {
      if (link !== shared || code === 'unreachable' || status > 499 || status === 401 || status === 429) return false
      canShare = false
      const all = [...link.rooms.values()]
      link.close()
      for (const room of all) if (room.link === link) room.link = undefined
      place()
      return true
    },
    closed (link) {
      links.delete(link)
      if (shared === link) shared = undefined
    },
    left (room) {
      rooms.delete(room.topic)
      for (const link of links) if (link.rooms.get(room.topic) === room) link.remove(room)
    }
  }

  const link = (own?: Room): Link => {
    const made = createLink(context, own)
    links.add(made)
    return made
  }
  /** Gives each room a connection: one room alone has its own, several share one. */
  const place = (): void => {
    try {
      canShare &&= !!(multiplex || prefix())
    } catch {} // the attempt says so
    const isShared = canShare && !context.isStreaming() && (shared || rooms.size > 1)
    for (const room of rooms.values()) {
      if (isShared) {
        shared ??= link()
        if (shared.rooms.has(room.topic)) continue
        if (!room.link?.isOpen) {
          room.link?.close()
          room.link = shared
        }
        shared.add(room)
      } else if (!room.link) {
        room.link = link(room)
        room.link.add(room)
      }
    }
  }

  const wake = (): void => {
    isPaused = false
    if (!context.away()) for (const each of links) each.wake()
  }
  const pause = (): void => {
    isPaused = true
    for (const each of links) each.pause()
  }
  const { document } = platform
  const wakeUps = [
    [platform, 'online', wake],
    [platform, 'pageshow', () => { if (isPaused) wake() }],
    [platform, 'pagehide', pause], // a page with a WebSocket does not enter the back/forward cache
    [document, 'visibilitychange', wake],
    [document, 'freeze', pause],
    [document, 'resume', wake]
  ] as const
  for (const [target, type, listener] of wakeUps) target?.addEventListener?.(type, listener)

  return {
    room (topic: any, roomOptions = {}) {
      let room = rooms.get(topic)
      if (!room) {
        room = createRoom(context, topic, roomOptions)
        if (ended.signal.aborted) room.finish(null)
        else {
          rooms.set(topic, room)
          queueMicrotask(place)
        }
      }
      return room.api as any
    },
    get: async (topic, query) => get(url(topicPath(topic), { ...query })),
    close () {
      for (const room of rooms.values()) room.finish(null)
      for (const each of links) each.close()
      for (const [target, type, listener] of wakeUps) target?.removeEventListener?.(type, listener)
      ended.abort()
    }
  }
}
