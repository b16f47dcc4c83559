import { Type } from '@sinclair/typebox'
import { createClient, type Client, type ClientOptions, type ClientRoom, type RoomEvents, type RoomOf, type RoomOptions, type RoomsError, type RoomState, type RoomStatus, type TopicSnapshot, type WebSocketClass } from 'fastify-rooms/client'
import type { DirectFrame, EndFrame, GapFrame, KeptMessages, Member, MessageFrame, PresenceFrame } from 'fastify-rooms/protocol'
import { defineTopics } from 'fastify-rooms/topics'
import { describe, expect, test } from 'tstyche'
import * as undici from 'undici'
import * as ws from 'ws'

export const topics = defineTopics({
  news: { message: Type.Object({ headline: Type.String() }) },
  'chat:*': { message: Type.Object({ text: Type.String(), user: Type.String() }), publish: Type.Object({ text: Type.String() }), presence: Type.Object({ name: Type.String() }) },
  'chat:admin': { message: Type.Object({ secret: Type.Number() }), publish: true },
  away: { publish: true, presence: { info: Type.Object({ away: Type.Boolean() }), grace: 5_000 } },
  tokens: { message: Type.String(), stream: true }
})
interface Chat { text: string, user: string }
interface Draft { text: string }
interface Named { name: string }

const client = createClient<typeof topics>({ url: '/rooms' })
const open = createClient({ url: '/rooms' })
declare const id: string

describe('a client of a topic map', () => {
  test('has rooms for exact topics, and for all topics of a family', () => {
    expect(client).type.toBe<Client<typeof topics>>()
    expect(client.room('news')).type.toBe<ClientRoom<'news', { headline: string }, never, unknown>>()
    expect(client.room('chat:1')).type.toBe<ClientRoom<'chat:1', Chat, Draft, Named>>()
    expect(client.room(`chat:${id}`)).type.toBe<ClientRoom<`chat:${string}`, Chat, Draft, Named>>()
    expect(client.room('chat:1')).type.toBe<RoomOf<typeof topics, 'chat:1'>>()
    expect(client.room('chat:1').topic).type.toBe<'chat:1'>()
  })

  test('prefers an exact topic to a family', () => {
    expect(client.room('chat:admin')).type.toBe<ClientRoom<'chat:admin', { secret: number }, { secret: number }, unknown>>()
  })

  test('refuses topics that the map does not have', () => {
    expect(client.room).type.not.toBeCallableWith('nowhere')
    expect(client.room).type.not.toBeCallableWith('chat')
    expect(client.room).type.not.toBeCallableWith('chat:1' as string)
    expect(client.room).type.not.toBeCallableWith(1)
    expect(client.room).type.not.toBeCallableWith()
    expect(client.get).type.not.toBeCallableWith('nowhere')
    expect<RoomOf<typeof topics, 'news'>>().type.not.toBeAssignableTo<RoomOf<typeof topics, 'away'>>()
  })

  test('closes without a value', () => {
    expect(client.close()).type.toBe<void>()
    expect(client.close).type.not.toBeCallableWith(1000)
  })
})

describe('publishing', () => {
  test('takes the publish type of the topic, which may differ from that of messages', () => {
    expect(client.room('chat:1').publish).type.toBeCallableWith({ text: 'hi' })
    expect(client.room('chat:1').publish).type.not.toBeCallableWith({ text: 1 })
    expect(client.room('chat:1').publish).type.not.toBeCallableWith({})
    expect(client.room('chat:1').publish).type.not.toBeCallableWith()
    expect(client.room('chat:admin').publish).type.toBeCallableWith({ secret: 1 })
    expect(client.room('chat:admin').publish).type.not.toBeCallableWith({ text: 'hi' })
    expect(client.room('away').publish).type.toBeCallableWith('anything')
    expect(client.room('chat:1').publish({ text: 'hi' })).type.toBe<Promise<unknown>>()
  })

  test('takes nothing where members may not publish', () => {
    expect(client.room('news').publish).type.not.toBeCallableWith({ headline: 'x' })
    expect(client.room('news').publish).type.not.toBeCallableWith(undefined)
    expect(client.room('tokens').publish).type.not.toBeCallableWith('x')
  })

  test('takes a key and the name of the message', () => {
    expect(client.room('chat:1').publish).type.toBeCallableWith({ text: 'hi' }, { key: 'k', mid: undefined })
    expect(client.room('chat:1').publish).type.toBeCallableWith({ text: 'hi' }, { mid: '0123456789abcdef' })
    expect(client.room('chat:1').publish).type.not.toBeCallableWith({ text: 'hi' }, { key: 1 })
    expect(client.room('chat:1').publish).type.not.toBeCallableWith({ text: 'hi' }, { queue: true })
  })
})

describe('a room', () => {
  const room = client.room('chat:1')

  test('is iterated for its messages', async () => {
    for await (const message of room) expect(message).type.toBe<MessageFrame<Chat>>()
    for await (const { data } of client.room('tokens')) expect(data).type.toBe<string>()
  })

  test('has the state of its topic', () => {
    const state = room.getSnapshot()
    expect(state).type.toBe<RoomState<Chat, Named>>()
    expect(state.status).type.toBe<'connecting' | 'open' | 'reconnecting' | 'waiting' | 'closed'>()
    expect(state.status).type.toBe<RoomStatus>()
    expect(state.transport).type.toBe<'websocket' | 'event-stream' | null>()
    expect(state.members).type.toBe<readonly Member<Named>[] | null>()
    expect(state.last).type.toBe<MessageFrame<Chat> | null>()
    expect(state.error).type.toBe<RoomsError | null>()
    expect(state.gap).type.toBe<GapFrame | null>()
    expect(client.room('away').getSnapshot().members).type.toBe<readonly Member<{ away: boolean }>[] | null>()
  })

  test('tells listeners of each event with its value', () => {
    expect(room.on('message', message => { expect(message).type.toBe<MessageFrame<Chat>>() })).type.toBe<() => void>()
    room.on('direct', frame => { expect(frame).type.toBe<DirectFrame>() })
    room.on('presence', frame => { expect(frame).type.toBe<PresenceFrame<Named>>() })
    room.on('gap', frame => { expect(frame).type.toBe<GapFrame>() })
    room.on('end', frame => { expect(frame).type.toBe<EndFrame>() })
    room.on('status', state => { expect(state).type.toBe<RoomState<Chat, Named>>() })
    expect(room.subscribe(() => {})).type.toBe<() => void>()
    expect(room.on).type.not.toBeCallableWith('close', () => {})
    expect(room.on).type.not.toBeCallableWith('message', (text: string) => text)
    expect(room.on).type.not.toBeCallableWith('message')
    expect<keyof RoomEvents>().type.toBe<'message' | 'direct' | 'presence' | 'gap' | 'end' | 'status'>()
  })

  test('takes the presence info of its topic', () => {
    expect(room.presence).type.toBeCallableWith({ name: 'Ada' })
    expect(room.presence).type.not.toBeCallableWith({ away: true })
    expect(room.presence).type.not.toBeCallableWith()
    expect(client.room('away').presence).type.toBeCallableWith({ away: true })
    expect(client.room('away').presence).type.not.toBeCallableWith({ name: 'Ada' })
    expect(client.room('news').presence).type.toBeCallableWith('anything')
  })

  test('reads pages, and sends private messages and answers', () => {
    expect(room.history()).type.toBe<Promise<KeptMessages<Chat>>>()
    expect(room.history).type.toBeCallableWith({ since: '0', limit: 10 })
    expect(room.history).type.not.toBeCallableWith({ limit: '10' })
    expect(room.direct('user:u1', { any: 'thing' })).type.toBe<Promise<unknown>>()
    expect(room.direct).type.not.toBeCallableWith({ any: 'thing' })
    expect(room.answer).type.toBeCallableWith(1)
    expect(room.answer).type.toBeCallableWith('s1', 'yes')
    expect(room.answer).type.not.toBeCallableWith()
    expect(room.reload()).type.toBe<Promise<void>>()
    expect(room.leave()).type.toBe<void>()
    expect(room.log()[0]!.at).type.toBe<Date>()
  })
})

describe('snapshots', () => {
  test('have the messages of the topic, and continue as a room', async () => {
    expect(client.get('news')).type.toBe<Promise<TopicSnapshot<'news', { headline: string }>>>()
    expect(client.get(`chat:${id}`)).type.toBe<Promise<TopicSnapshot<`chat:${string}`, Chat>>>()
    const snapshot = await client.get('chat:1', { since: 'latest', limit: 10 })
    expect(snapshot.messages[0]!.data).type.toBe<Chat>()
    expect(snapshot.count).type.toBe<number>()
    expect(client.room).type.toBeCallableWith('chat:1', { since: snapshot.id })
    expect(client.get).type.not.toBeCallableWith('chat:1', { sinse: '0' })
  })

  test('are handed to reload', () => {
    client.room('chat:1', { reload: snapshot => { expect(snapshot).type.toBe<TopicSnapshot<'chat:1', Chat>>() } })
    expect<NonNullable<RoomOptions['reload']>>().type.toBeCallableWith({ topic: 'x', messages: [], complete: true, count: 0 })
  })
})

describe('options', () => {
  test('of a room', () => {
    expect(client.room).type.toBeCallableWith('chat:1', {})
    expect(client.room).type.toBeCallableWith('chat:1', { since: undefined, presence: true, reload: async () => {} })
    expect(client.room).type.not.toBeCallableWith('chat:1', { presence: 'yes' })
    expect(client.room).type.not.toBeCallableWith('chat:1', { since: 1 })
    expect(client.room).type.not.toBeCallableWith('chat:1', { reload: true })
    expect(client.room).type.not.toBeCallableWith('chat:1', { presense: true })
  })

  test('of a client', () => {
    expect(createClient).type.toBeCallableWith({ url: '/rooms', token: 'secret', queue: 64, multiplex: '/all', headers: { 'x-app': '1' } })
    expect(createClient).type.toBeCallableWith({ url: '/rooms', token: async ({ expired }: { expired: boolean }) => expired ? 'new' : null })
    expect(createClient).type.toBeCallableWith({ url: '/rooms', token: () => undefined, multiplex: false, onerror: (error: unknown) => error })
    expect(createClient).type.not.toBeCallableWith()
    expect(createClient).type.not.toBeCallableWith({})
    expect(createClient).type.not.toBeCallableWith({ url: 1 })
    expect(createClient).type.not.toBeCallableWith({ url: '/rooms', token: () => 1 })
    expect(createClient).type.not.toBeCallableWith({ url: '/rooms', token: (expired: boolean) => `${expired}` })
    expect(createClient).type.not.toBeCallableWith({ url: '/rooms', multiplex: true })
    expect(createClient).type.not.toBeCallableWith({ url: '/rooms', queue: true })
    expect(createClient).type.not.toBeCallableWith({ url: '/rooms', tokens: 'secret' })
    expect(createClient).type.not.toBeCallableWith({ url: '/rooms', WebSocket: EventTarget })
  })

  test('take the WebSocket of ws and undici, and a fetch', () => {
    expect(ws.WebSocket).type.toBeAssignableTo<WebSocketClass>()
    expect(undici.WebSocket).type.toBeAssignableTo<WebSocketClass>()
    expect(WebSocket).type.toBeAssignableTo<WebSocketClass>()
    expect(fetch).type.toBeAssignableTo<NonNullable<ClientOptions['fetch']>>()
    expect(undici.fetch).type.toBeAssignableTo<NonNullable<ClientOptions['fetch']>>()
  })
})

describe('without a topic map', () => {
  test('each name is a topic, and payloads are unknown', () => {
    expect(open.room('anything')).type.toBe<ClientRoom<'anything', unknown, unknown, unknown>>()
    expect(open.room(id)).type.toBe<ClientRoom<string, unknown, unknown, unknown>>()
    expect(open.room('x').publish).type.toBeCallableWith({ any: 'thing' })
    expect(open.room('x').presence).type.toBeCallableWith(1)
    expect(open.get('x')).type.toBe<Promise<TopicSnapshot<'x', unknown>>>()
    open.room('x').on('message', ({ data }) => { expect(data).type.toBe<unknown>() })
    expect(open.room).type.not.toBeCallableWith(1)
  })
})
