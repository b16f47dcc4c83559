import { Type } from '@sinclair/typebox'
import { defineTopics, type Info, type Message, type NameOf, type Payload, type Publish, type Rooms, type RoomsOptions, type Session, type TopicKey, type TopicName } from 'fastify-rooms'
import { describe, expect, test } from 'tstyche'
import * as z from 'zod'

const Chat = Type.Object({ text: Type.String(), user: Type.String() })
const Draft = Type.Object({ text: Type.String() })

const topics = defineTopics({
  news: { message: Type.Object({ headline: Type.String() }), post: '/dashboard' },
  'chat:*': { message: Chat, publish: Draft, presence: Type.Object({ name: Type.String() }), post: true, limits: { members: 10, payload: 1_000, messages: 20, per: 1_000 } },
  'chat:admin': { message: Type.Object({ secret: Type.Number() }), publish: true },
  any: { publish: true, presence: true },
  away: { presence: { info: Type.Object({ away: Type.Boolean() }), grace: 5_000 } },
  late: { presence: { grace: 5_000 } }
})
type T = typeof topics
type ChatMessage = { text: string, user: string }

describe('defineTopics', () => {
  test('keeps names, options and schemas as they were written', () => {
    expect<keyof T>().type.toBe<'news' | 'chat:*' | 'chat:admin' | 'any' | 'away' | 'late'>()
    expect(topics.away.presence.grace).type.toBe<5_000>()
    expect(topics.news.post).type.toBe<'/dashboard'>()
    expect(topics['chat:*'].limits.members).type.toBe<10>()
    expect(topics['chat:*'].message).type.toBe(Chat)
    expect(topics['chat:admin'].publish).type.toBe<true>()
  })

  test('takes an empty topic and plain JSON Schema', () => {
    expect(defineTopics).type.toBeCallableWith({ news: {} })
    expect(defineTopics).type.toBeCallableWith({ news: { message: { type: 'object', properties: { a: { type: 'string' } } } } })
  })

  test('refuses options that there are not', () => {
    expect(defineTopics).type.not.toBeCallableWith({ news: { mesage: Chat } })
    expect(defineTopics).type.not.toBeCallableWith({ news: { message: Chat, histroy: {} } })
    expect(defineTopics).type.not.toBeCallableWith({ news: { message: Chat }, other: { message: Chat, onMessage: {} } })
    expect(defineTopics).type.not.toBeCallableWith({ news: { limits: { members: 1, mebmers: 1 } } })
  })

  test('refuses values of the wrong type', () => {
    expect(defineTopics).type.not.toBeCallableWith({ news: 'chat' })
    expect(defineTopics).type.not.toBeCallableWith({ news: { message: 'string' } })
    expect(defineTopics).type.not.toBeCallableWith({ news: { message: Chat, publish: false } })
    expect(defineTopics).type.not.toBeCallableWith({ news: { presence: 'yes' } })
    expect(defineTopics).type.not.toBeCallableWith({ news: { post: 'no-slash' } })
    expect(defineTopics).type.not.toBeCallableWith({ news: { limits: { members: '1' } } })
    expect(defineTopics).type.toBeCallableWith({ news: { slow: { policy: 'latest', bytes: 1 } } })
    expect(defineTopics).type.not.toBeCallableWith({ news: { slow: { policy: 'keep' } } })
    expect(defineTopics).type.not.toBeCallableWith({ news: { slow: { policy: () => 'drop' } } })
    expect(defineTopics).type.not.toBeCallableWith({ news: { slow: { policy: 'drop', bites: 1 } } })
    expect(defineTopics).type.not.toBeCallableWith(['news'])
    expect(defineTopics).type.not.toBeCallableWith()
  })

  test('takes presence as true, a schema or options', () => {
    expect(defineTopics).type.toBeCallableWith({ news: { presence: Chat } })
    expect(defineTopics).type.toBeCallableWith({ news: { presence: { type: 'object' } } })
    expect(defineTopics).type.toBeCallableWith({ news: { presence: { grace: 1 } } })
    expect(defineTopics).type.toBeCallableWith({ news: { presence: { info: Chat, grace: 1 } } })
    expect(defineTopics).type.toBeCallableWith({ news: { presence: { info: true, grace: 1 } } })
    expect(defineTopics).type.not.toBeCallableWith({ news: { presence: { grace: '1' } } })
    expect(defineTopics).type.not.toBeCallableWith({ news: { presence: { info: 'any', grace: 1 } } })
    expect(defineTopics).type.not.toBeCallableWith({ news: { presence: { info: () => true, grace: 1 } } })
    expect(defineTopics).type.not.toBeCallableWith({ news: { presence: { info: Chat, grace: 1, graces: 1 } } })
    expect(defineTopics).type.not.toBeCallableWith({ news: { presence: { type: 'object', grace: 1 } } })
  })

  test('refuses functions: topics are data', () => {
    expect(defineTopics).type.not.toBeCallableWith({ news: () => ({ message: Chat }) })
    expect(defineTopics).type.not.toBeCallableWith({ news: { message: Chat, onMessage: () => {} } })
    expect(defineTopics).type.not.toBeCallableWith({ news: { message: () => Chat } })
    expect(defineTopics).type.not.toBeCallableWith({ news: { publish: () => true } })
    expect(defineTopics).type.not.toBeCallableWith({ news: { presence: () => true } })
  })
})

describe('names', () => {
  test('are the exact ones, and template literals for families', () => {
    expect<TopicName<T>>().type.toBe<'news' | 'any' | 'away' | 'late' | 'chat:admin' | `chat:${string}`>()
    expect<'chat:42'>().type.toBeAssignableTo<TopicName<T>>()
    expect<'chat'>().type.not.toBeAssignableTo<TopicName<T>>()
    expect<'new'>().type.not.toBeAssignableTo<TopicName<T>>()
    expect<string>().type.not.toBeAssignableTo<TopicName<T>>()
  })

  test('fall under a key: an exact one before a family', () => {
    expect<TopicKey<T, 'news'>>().type.toBe<'news'>()
    expect<TopicKey<T, 'chat:42'>>().type.toBe<'chat:*'>()
    expect<TopicKey<T, `chat:${number}`>>().type.toBe<'chat:*'>()
    expect<TopicKey<T, 'chat:admin'>>().type.toBe<'chat:admin'>()
    expect<TopicKey<T, 'weather'>>().type.toBe<never>()
  })

  test('under one key', () => {
    expect<NameOf<'chat:*', T>>().type.toBe<`chat:${string}`>()
    expect<NameOf<'news', T>>().type.toBe<'news'>()
  })

  test('a family of everything takes every name', () => {
    type Everything = { '*': { message: typeof Chat }, news: { message: typeof Draft } }
    expect<TopicName<Everything>>().type.toBe<string>()
    expect<Message<'weather', Everything>>().type.toBe<ChatMessage>()
    expect<Message<'news', Everything>>().type.toBe<{ text: string }>()
  })
})

describe('what a topic carries', () => {
  test('messages', () => {
    expect<Message<'news', T>>().type.toBe<{ headline: string }>()
    expect<Message<'chat:42', T>>().type.toBe<ChatMessage>()
    expect<Message<'chat:*', T>>().type.toBe<ChatMessage>()
    expect<Message<'chat:admin', T>>().type.toBe<{ secret: number }>()
    expect<Message<'any', T>>().type.toBe<unknown>()
    expect<Message<'news' | 'chat:1', T>>().type.toBe<{ headline: string } | ChatMessage>()
  })

  test('what members may send: a schema of its own, the same as the message, or nothing', () => {
    expect<Publish<'chat:42', T>>().type.toBe<{ text: string }>()
    expect<Publish<'chat:admin', T>>().type.toBe<{ secret: number }>()
    expect<Publish<'any', T>>().type.toBe<unknown>()
    expect<Publish<'news', T>>().type.toBe<never>()
  })

  test('presence info', () => {
    expect<Info<'chat:42', T>>().type.toBe<{ name: string }>()
    expect<Info<'any', T>>().type.toBe<unknown>()
    expect<Info<'news', T>>().type.toBe<unknown>()
    expect<Info<'away', T>>().type.toBe<{ away: boolean }>()
    expect<Info<'late', T>>().type.toBe<unknown>()
  })

  test('a payload for several topics is what every one of them takes', () => {
    expect<Payload<'news', T>>().type.toBe<{ headline: string }>()
    expect<Payload<'news' | 'chat:1', T>>().type.toBe<{ headline: string } & ChatMessage>()
    expect<Payload<'news' | 'any', T>>().type.toBe<{ headline: string }>()
  })

  test('nothing is known where no topics are declared', () => {
    expect<TopicName>().type.toBe<string>()
    expect<TopicKey<Record<string, { publish: true, presence: true }>, 'news'>>().type.toBe<'news'>()
    expect<NameOf<'news'>>().type.toBe<string>()
    expect<Message<'news'>>().type.toBe<unknown>()
    expect<Publish<'news'>>().type.toBe<unknown>()
    expect<Info<'news'>>().type.toBe<unknown>()
    expect<Payload<'news'>>().type.toBe<unknown>()
  })
})

describe('kinds of message', () => {
  const kinds = defineTopics({
    chat: {
      message: Type.Union([
        Type.Object({ kind: Type.Literal('text'), text: Type.String() }),
        Type.Object({ kind: Type.Literal('typing'), on: Type.Boolean() })
      ]),
      publish: true
    }
  })
  type K = typeof kinds
  type Kind = { kind: 'text', text: string } | { kind: 'typing', on: boolean }

  test('are narrowed by their literal in onMessage', () => {
    expect(kinds.chat.publish).type.toBe<true>()
    const onMessage: NonNullable<RoomsOptions<K>['onMessage']> = {
      chat: (session, payload) => {
        expect(payload).type.toBe<Kind>()
        if (payload.kind === 'text') {
          expect(payload).type.toBe<{ kind: 'text', text: string }>()
          return session.send({ kind: 'typing', on: false })
        }
        expect(payload.on).type.toBe<boolean>()
      }
    }
    expect(onMessage).type.toBeAssignableTo<object>()
  })

  test('are each checked in send and broadcast', () => {
    for (const call of [{} as Session<'chat', K>]) {
      expect(call.send).type.toBeCallableWith({ kind: 'text', text: 'x' })
      expect(call.send).type.not.toBeCallableWith({ kind: 'text', on: true })
      expect(call.send).type.not.toBeCallableWith({ kind: 'txt', text: 'x' })
    }
    const rooms = {} as Rooms<K>
    expect(rooms.broadcast).type.toBeCallableWith('chat', { kind: 'typing', on: true })
    expect(rooms.broadcast).type.not.toBeCallableWith('chat', { kind: 'typing', text: 'x' })
    expect(rooms.broadcast).type.not.toBeCallableWith('chat', { kind: 'gone' })
  })

  test('may come from Zod', () => {
    const schema = z.discriminatedUnion('kind', [z.object({ kind: z.literal('text'), text: z.string() }), z.object({ kind: z.literal('typing'), on: z.boolean() })])
    const topics = defineTopics({ chat: { message: Type.Unsafe<z.infer<typeof schema>>(z.toJSONSchema(schema, { target: 'draft-7' })) } })
    expect(topics).type.toBeAssignableTo<object>()
    expect<Message<'chat', typeof topics>>().type.toBe<Kind>()
  })
})
