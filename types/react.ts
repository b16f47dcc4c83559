/**
 * The React binding, `fastify-rooms/react`. These types name no type of the DOM and none of Node.js.
 */
import type { ReactElement, ReactNode } from 'react'
import type { Client, ClientRoom, RoomOptions, RoomState, TopicSnapshot } from './client.ts'
import type { EndFrame, MessageFrame } from './protocol.ts'
import type { Info, Message, OpenTopics, Publish, TopicName } from './topics.ts'

/**
 * The options of `useRoom`. A room is joined once, with the options of all components that use it: with `presence` if one of them asks for it, and with the `since`
 * of the first that has one. If a component asks for more than the room was joined with, or changes its own `since`, `presence` or `snapshot`, the room is joined
 * again. `reload` may be another function in each render.
 *
 * With `since`, `snapshot` or `reload`, the list of messages is read anew if messages are missing; without them, `recovered` is `false` then.
 */
export interface UseRoomOptions<N extends string = string, P = unknown> extends RoomOptions<N, P> {
  /** A snapshot of the topic (`client.get`): the list begins with its messages, also on the server, and the room continues behind it. */
  snapshot?: Pick<TopicSnapshot<N, P>, 'id' | 'messages'> | null | undefined
  /** Most messages in the list: the newest ones. Default 500. `Infinity`: all, as an answer that is a stream needs. */
  keep?: number | undefined
}

/**
 * A room as a component sees it. Each change makes a new object; an object never changes. The functions stay the same while client and topic do.
 *
 * On the server, and until the room is joined, its status is `connecting`; without a topic, `closed`.
 */
export interface RoomView<N extends string = string, P = unknown, S = unknown, I = unknown> extends RoomState<P, I>, Pick<ClientRoom<N, P, S, I>, 'publish' | 'direct' | 'answer' | 'presence' | 'history'> {
  /** The messages since the join, oldest first: those that `since` asked for, and the new ones. Another array after each change. */
  messages: readonly MessageFrame<P>[]
  /** The end of a stream; `null` before it. */
  end: EndFrame | null
  /** The room of the client, for `on` and `log`; `null` before it is joined. Components do not call its `leave`. */
  room: ClientRoom<N, P, S, I> | null
  /** Joins a room again that is `closed`, behind its last message. It does nothing if the room is not closed, or if there is none. */
  rejoin (): void
}

/** The view of a topic of a topic map. */
export type RoomViewOf<T, N extends TopicName<T>> = RoomView<N, Message<N, T>, Publish<N, T>, Info<N, T>>

/** The hook of a room. Without a topic (`null`, `undefined`) nothing is joined. */
export interface UseRoom<T = OpenTopics> {
  /** Joins a topic of a client while the component is mounted. Components that use the same topic share one membership. */
  <U, const N extends TopicName<U>>(client: Client<U>, topic: N | null | undefined, options?: UseRoomOptions<NoInfer<N>, Message<NoInfer<N>, U>>): RoomViewOf<U, N>
  /** Joins a topic of the client of the `RoomsProvider` above. */
  <const N extends TopicName<T>>(topic: N | null | undefined, options?: UseRoomOptions<NoInfer<N>, Message<NoInfer<N>, T>>): RoomViewOf<T, N>
}

export interface RoomsProviderProps<T = OpenTopics> {
  client: Client<T>
  children?: ReactNode
}

/** Hooks that are typed by one topic map, and their provider. */
export interface RoomsHooks<T = OpenTopics> {
  /** Gives a client to the hooks below it. It does not close the client. */
  RoomsProvider (props: RoomsProviderProps<T>): ReactElement
  /**
   * Returns the client of the `RoomsProvider` above.
   * @throws Error if there is none
   */
  useRoomsClient (): Client<T>
  useRoom: UseRoom<T>
}
