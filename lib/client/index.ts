import type { Client, ClientOptions } from '../../types/client.ts'
import type { OpenTopics } from '../../types/topics.ts'
import { roomsError } from './error.ts'
import type { Core } from './core.ts'
import { createLink } from './link.ts'
import type { Platform } from './platform.ts'
import { createRoom } from './room.ts'
import type { Shared } from './shared.ts'

export type * from '../../types/client.ts'
export type { DirectFrame, EndFrame, EndReason, GapFrame, KeptEnd, KeptMessages, Member, MessageFrame, PresenceFrame, Ref, StoredMessage } from '../../types/protocol.ts'
export type { Info, Message, Publish, TopicMap, TopicName } from '../../types/topics.ts'

/**
 * Makes a client of one server. It connects when the first room is made.
 * @typeParam T - the topic map of the server, by `import type`
 */
export const createClient = <T = OpenTopics>(options: ClientOptions): Client<T> => {
  const { onerror = console.error, token } = options
  const platform = globalThis as unknown as Platform
  const WebSocket = options.WebSocket ?? platform.WebSocket
  const ended = new AbortController()
  const { signal } = ended
  let shared: Promise<Shared | undefined | void> | undefined
  /** One promise, so that calls keep their order: a loader may settle several imports of one module in another order. */
  let loading: Promise<any> | undefined
  let canShare = options.multiplex !== false
  let streaming: unknown
  let isPaused = false

  const core: Core = {
    options,
    roomsError,
    createLink,
    signal,
    links: new Set(),
    rooms: new Map(),
    transport: 'websocket',
    open: (url, token) => new WebSocket!(url.href.replace(/^http/, 'ws'), ['rooms.v1', ...token ? ['bearer.' + btoa(token).replace(/\W/g, character => '-_'['+/'.indexOf(character)] ?? '')] : []]),
    isHidden: () => isPaused || platform.document?.visibilityState === 'hidden',
    url (topic) {
      const url = new URL(options.url, platform.location?.href)
      url.pathname = url.pathname.replace(/\/?$/, `/${encodeURIComponent(topic)}`)
      return url
    },
    token: async (expired = false) => typeof token === 'function' ? token({ expired }) : token,
    report: error => queueMicrotask(() => onerror(error)),
    http: (name, ...values) => (loading ??= import('./http.ts')).then(http => http[name](core, ...values), error => {
      loading = undefined
      throw error
    }),
    task: (...values) => core.http(...values).catch(core.report),
    async place (isAlone?: boolean) {
      if (isAlone) canShare = false
      await streaming
      if (canShare && core.rooms.size > 1) shared ??= import('./shared.ts').then(module => module.createShared(core), () => {})
      const several = canShare && await shared
      for (const room of core.rooms.values()) {
        if (several) several.add(room)
        else room.link ??= createLink(core, room)
      }
    }
  }
  const { rooms, links } = core

  try {
    if (!WebSocket || platform.sessionStorage?.getItem('fastify-rooms')) streaming = core.task('stream')
  } catch {} // the page may not use the storage

  // Events of the document reach the window in the capture phase. A page with a WebSocket does not enter the back/forward cache.
  for (const type of 'online pageshow pagehide visibilitychange freeze resume'.split(' ')) {
    platform.addEventListener?.(type, () => {
      isPaused = /hide|freeze/.test(type)
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
        else queueMicrotask(core.place)
      }
      return room.api as any
    },
    get: async (topic, query) => core.http('get', topic, query),
    close () {
      ended.abort()
      for (const room of rooms.values()) room.finish(null)
    }
  }
}
