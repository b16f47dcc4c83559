import type { Readable, Writable } from 'node:stream'
import { Type } from '@sinclair/typebox'
import { defineTopics, type AnySession, type Rooms, type Session } from 'fastify-rooms'
import { describe, expect, test } from 'tstyche'

export const topics = defineTopics({
  news: { message: Type.Object({ headline: Type.String() }) },
  'chat:*': {
    message: Type.Object({ text: Type.String(), user: Type.String() }),
    publish: Type.Object({ text: Type.String() }),
    presence: Type.Object({ name: Type.String() })
  },
  echo: { message: Type.Number(), publish: true, presence: true }
})
type T = typeof topics
type Chat = Session<'chat:*', T>
declare const session: AnySession<T>
declare const chat: Chat

describe('a session', () => {
  test('knows its topic', () => {
    expect(chat.key).type.toBe<'chat:*'>()
    expect(chat.topic).type.toBe<`chat:${string}`>()
    expect<Session<'news', T>['topic']>().type.toBe<'news'>()
    expect(chat.rooms).type.toBe<Rooms<T>>()
  })

  test('knows who is behind it', () => {
    expect(chat.user).type.toBe<string | undefined>()
    expect(chat.info).type.toBe<{ name: string } | undefined>()
    expect(chat.state).type.toBe<'joining' | 'open' | 'closed'>()
    expect(chat.connectedAt).type.toBe<Date>()
    expect(chat.expires).type.toBe<Date | undefined>()
    expect(chat.toJSON().user).type.toBe<string | undefined>()
    expect(chat.signal).type.toBe<AbortSignal>()
    expect(chat.connection.mode).type.toBe<'rooms.v1' | 'rooms.raw'>()
  })

  test('cannot be written to but by its methods', () => {
    // @ts-expect-error Cannot assign to 'user' because it is a read-only property.
    chat.user = 'root'
    // @ts-expect-error Cannot assign to 'key' because it is a read-only property.
    chat.key = 'chat:*'
  })

  test('sends what its topic carries', () => {
    expect(chat.send).type.toBeCallableWith({ text: 'x', user: 'u1' })
    expect(chat.send).type.not.toBeCallableWith({ text: 'x' })
    expect(chat.send).type.not.toBeCallableWith({ text: 'x', user: 'u1', other: 1 })
    expect(chat.send).type.not.toBeCallableWith()
    expect(chat.send({ text: 'x', user: 'u1' })).type.toBe<Promise<void>>()
  })

  test('broadcasts to its own topic', () => {
    expect(chat.rooms.broadcast).type.toBeCallableWith(chat.topic, { text: 'x', user: 'u1' })
    expect(chat.rooms.broadcast).type.not.toBeCallableWith(chat.topic, { text: 'x' })
    expect(chat.rooms.broadcast).type.not.toBeCallableWith(chat.topic, { headline: 'x' })
  })

  test('yields what its member may send', async () => {
    for await (const payload of chat) expect(payload).type.toBe<{ text: string }>()
    const echo = {} as Session<'echo', T>
    for await (const payload of echo) expect(payload).type.toBe<number>()
    expect<ReturnType<Session<'news', T>[typeof Symbol.asyncIterator]>>().type.toBe<AsyncIterator<never, void, undefined>>()
  })

  test('is a stream both ways', () => {
    expect(chat.readable).type.toBe<Readable>()
    expect(chat.writable).type.toBe<Writable>()
    expect(chat.close).type.toBeCallableWith(4000, 'reason')
    expect(chat.close).type.not.toBeCallableWith('reason')
  })
})

describe('a session of any topic', () => {
  test('is one of all of them', () => {
    expect<AnySession<T>>().type.toBe<Session<'news', T> | Session<'chat:*', T> | Session<'echo', T>>()
    expect(session.key).type.toBe<'news' | 'chat:*' | 'echo'>()
    expect(session.topic).type.toBe<'news' | 'echo' | `chat:${string}`>()
  })

  test('is narrowed by its key', () => {
    if (session.key === 'chat:*') {
      expect(session).type.toBe<Chat>()
      expect(session.send).type.toBeCallableWith({ text: 'x', user: 'u1' })
      expect(session.info).type.toBe<{ name: string } | undefined>()
    } else if (session.key === 'echo') {
      expect(session.send).type.toBeCallableWith(1)
      expect(session.send).type.not.toBeCallableWith({ text: 'x', user: 'u1' })
    } else {
      expect(session).type.toBe<Session<'news', T>>()
    }
  })

  test('yields what any member may send', async () => {
    for await (const payload of session) expect(payload).type.toBe<number | { text: string }>()
  })

  test('takes no payload before it is known which one', () => {
    expect(session.send).type.not.toBeCallableWith({ text: 'x', user: 'u1' })
    expect(session.send).type.not.toBeCallableWith(1)
  })
})

describe('without declared topics', () => {
  test('names are strings, and payloads unknown', async () => {
    const loose = {} as AnySession
    expect(loose).type.toBe<Session>()
    expect(loose.key).type.toBe<string>()
    expect(loose.topic).type.toBe<string>()
    expect(loose.info).type.toBe<unknown>()
    expect(loose.send).type.toBeCallableWith({ anything: [1, null] })
    for await (const payload of loose) expect(payload).type.toBe<unknown>()
  })
})
