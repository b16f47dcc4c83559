import { Type } from '@sinclair/typebox'
import { createClient, type ClientRoom } from 'fastify-rooms/client'
import { createRoomsHooks, RoomsProvider, useRoom, useRoomsClient, type RoomView } from 'fastify-rooms/react'
import { createTestClient, until, type RoomState } from 'fastify-rooms/testing'
import type { FastifyInstance } from 'fastify'
import { defineTopics } from 'fastify-rooms/topics'
import { describe, expect, test } from 'tstyche'

export const topics = defineTopics({
  news: { message: Type.Object({ headline: Type.String() }) },
  'chat:*': { message: Type.Object({ text: Type.String(), user: Type.String() }), publish: Type.Object({ text: Type.String() }), presence: Type.Object({ typing: Type.Boolean() }) }
})
type T = typeof topics
type Chat = { text: string, user: string }

const client = createClient<T>({ url: '/rooms' })
const typed = createRoomsHooks<T>()

describe('useRoom', () => {
  test('is typed by the topics of the client', () => {
    const chat = useRoom(client, 'chat:1', { since: '0', keep: 10, presence: true, reload: ({ messages }) => { expect(messages[0]!.data).type.toBe<Chat>() } })
    expect(chat).type.toBe<RoomView<'chat:1', Chat, { text: string }, { typing: boolean }>>()
    expect(chat.messages[0]!.data).type.toBe<Chat>()
    expect(chat.last!.data).type.toBe<Chat>()
    expect(chat.members![0]!.info).type.toBe<{ typing: boolean } | undefined>()
    expect(chat.publish).type.toBeCallableWith({ text: 'hi' })
    expect(chat.publish).type.not.toBeCallableWith({ txt: 'hi' })
    expect(chat.presence).type.toBeCallableWith({ typing: true })
    expect(chat.presence).type.not.toBeCallableWith({ typing: 1 })
    expect(chat.room).type.toBe<ClientRoom<'chat:1', Chat, { text: string }, { typing: boolean }> | null>()
    expect(useRoom(client, 'news').publish).type.not.toBeCallableWith({ headline: 'members may not publish' })
  })

  test('takes a topic that is not known yet, and refuses topics that there are not', () => {
    const id = undefined as string | undefined
    const { messages } = useRoom(client, id === undefined ? null : `chat:${id}`)
    expect(messages[0]!.data).type.toBe<Chat>()
    expect(useRoom).type.toBeCallableWith(client, null)
    expect(useRoom).type.not.toBeCallableWith(client, 'weather')
    expect(useRoom).type.not.toBeCallableWith(client, 'chat:1', { sinse: '0' })
    expect(useRoom).type.not.toBeCallableWith(client, 'chat:1', { keep: '1' })
    expect(useRoom).type.not.toBeCallableWith(client, 1)
  })

  test('takes a snapshot of the same topic alone', async () => {
    const snapshot = await client.get('chat:1')
    expect(useRoom).type.toBeCallableWith(client, 'chat:1' as const, { snapshot })
    expect(useRoom).type.not.toBeCallableWith(client, 'news' as const, { snapshot })
  })

  test('of a provider is typed by createRoomsHooks, and otherwise open', () => {
    expect(typed.useRoom('chat:1').messages[0]!.data).type.toBe<Chat>()
    expect(typed.useRoom).type.not.toBeCallableWith('weather')
    expect(typed.useRoomsClient()).type.toBe(client)
    expect(typed.RoomsProvider).type.toBeCallableWith({ client, children: null })
    expect(typed.RoomsProvider).type.not.toBeCallableWith({})
    expect(useRoom('anything').messages[0]!.data).type.toBe<unknown>()
    expect(useRoomsClient().room('anything').publish).type.toBeCallableWith({ text: 'hi' })
    expect(RoomsProvider).type.toBeCallableWith({ client: createClient({ url: '/rooms' }) })
  })
})

describe('createTestClient', () => {
  const app = {} as FastifyInstance

  test('is typed as createClient', () => {
    expect(createTestClient<T>(app)).type.toBe(client)
    expect(createTestClient(app).room('anything').publish).type.toBeCallableWith({ text: 'hi' })
    expect(createTestClient).type.toBeCallableWith(app, { headers: { cookie: 'a=b' }, token: async () => 'secret', queue: 1, multiplex: false as const, onerror: () => {} })
    expect(createTestClient).type.not.toBeCallableWith(app, { url: '/rooms' })
    expect(createTestClient).type.not.toBeCallableWith(app, { headers: { a: 1 } })
    expect(createTestClient).type.not.toBeCallableWith()
  })

  test('until has the state of the room', () => {
    const room = createTestClient<T>(app).room('chat:1')
    expect(until(room, ({ last }) => last?.data.text === 'hi', { timeout: 100 })).type.toBe<Promise<RoomState<Chat, { typing: boolean }>>>()
    expect(until).type.not.toBeCallableWith(room, 'open')
  })
})
