'use client'
import { createContext, createElement, useCallback, useContext, useEffect, useMemo, useRef, useState, useSyncExternalStore } from 'react'
import type { Client, ClientRoom } from '../../types/client.ts'
import type { RoomsHooks, RoomView, UseRoomOptions } from '../../types/react.ts'
import type { OpenTopics } from '../../types/topics.ts'
import { roomsError } from '../client/error.ts'
import { findStore, framesOf, openStore, type Holder, type RoomSnapshot } from './store.ts'

export type * from '../../types/react.ts'

/** Most messages in the list of a component. */
const defaultKeep = 500

/** The state of a room that is not joined yet. */
const idle: RoomSnapshot = {
  status: 'connecting',
  transport: null,
  session: null,
  recovered: true,
  gap: null,
  members: null,
  count: null,
  error: null,
  last: null,
  id: null,
  messages: [],
  end: null,
  room: null
}
/** The state of a component without a topic. */
const none: RoomSnapshot = { ...idle, status: 'closed' }

/**
 * Makes hooks that are typed by a topic map, and their provider.
 *
 * ```ts
 * export const { RoomsProvider, useRoom, useRoomsClient } = createRoomsHooks<typeof topics>()
 * ```
 *
 * @typeParam T - the topic map of the server, by `import type`
 */
export const createRoomsHooks = <T = OpenTopics>(): RoomsHooks<T> => {
  const Context = createContext<Client<any> | null>(null)

  const useRoom = (...args: any[]): RoomView<any, any, any, any> => {
    const context = useContext(Context)
    const [client, topic, options = {}] = (typeof args[0] === 'object' && args[0] !== null ? args : [context, ...args]) as [Client<any> | null, string | null | undefined, UseRoomOptions<any, any>?]
    if (client === null) throw new Error('useRoom has no client: pass one, or render the component in a RoomsProvider')
    const { since, presence, snapshot, keep = defaultKeep } = options
    const position = since ?? snapshot?.id
    const reloads = options.reload !== undefined
    const [holder] = useState<Holder>(() => ({}))

    const latest = useRef(options)
    useEffect(() => { latest.current = options })

    const subscribe = useCallback((listener: () => void) => {
      if (topic == null) return () => {}
      const { snapshot } = latest.current
      return openStore(client, topic).hold(holder, { since: position, presence, keep, snapshot, reloads, reload: fetched => latest.current.reload?.(fetched) }, listener)
    }, [client, topic, position, presence, keep, reloads, holder])

    const first = useMemo(() => topic == null ? none : snapshot ? { ...idle, messages: framesOf(snapshot) } : idle, [topic, position])
    const state = useSyncExternalStore(subscribe, () => (topic == null ? undefined : findStore(client, topic)?.getSnapshot()) ?? first, () => first)

    const calls = useMemo(() => {
      const store = (): ReturnType<typeof findStore> => topic == null ? undefined : findStore(client, topic)
      const call = async (act: (room: ClientRoom<any, any, any, any>) => Promise<any>): Promise<any> => {
        const room = store()?.getSnapshot().room
        if (room == null) throw roomsError('unsent', 'the component has not joined a room')
        return act(room)
      }
      return {
        publish: (data: any, details?: any) => call(room => room.publish(data, details)),
        direct: (to: any, data: any) => call(room => room.direct(to, data)),
        answer: (ref: any, data?: any) => { store()?.getSnapshot().room!.answer(ref, data) },
        presence: (info: any) => call(room => room.presence(info)),
        history: (page?: any) => call(room => room.history(page)),
        rejoin: () => { store()?.rejoin() }
      }
    }, [client, topic])

    return useMemo(() => {
      const { messages } = state
      return { ...state, ...calls, messages: messages.length > keep ? messages.slice(messages.length - keep) : messages }
    }, [state, calls, keep])
  }

  return {
    RoomsProvider: ({ client, children }) => createElement(Context.Provider, { value: client }, children),
    useRoomsClient () {
      const client = useContext(Context)
      if (client === null) throw new Error('useRoomsClient has no client: render the component in a RoomsProvider')
      return client
    },
    useRoom
  }
}

/** The hooks of a program that passes a client to `useRoom`, which types it, or whose topics are not typed. */
export const { RoomsProvider, useRoomsClient, useRoom }: RoomsHooks = createRoomsHooks()
