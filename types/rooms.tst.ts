import { Type } from '@sinclair/typebox'
import { defineTopics, type AckFrame, type AsyncApiDocument, type AsyncApiMessage, type AsyncApiSchema, type BroadcastResult, type InjectedClient, type Member, type RequestRooms, type Rooms, type ServerFrame, type Snapshot, type StoredMessage, type UserMember } from 'fastify-rooms'
import { describe, expect, test } from 'tstyche'

export const topics = defineTopics({
  news: { message: Type.Object({ headline: Type.String() }) },
  'chat:*': { message: Type.Object({ text: Type.String() }), publish: true, presence: Type.Object({ name: Type.String() }) },
  'chat:admin': { message: Type.Object({ text: Type.String(), level: Type.Number() }) },
  any: { presence: true },
  either: { message: Type.Union([Type.Object({ on: Type.Boolean() }), Type.Null()]) }
})
type Names = 'news' | 'any' | 'either' | 'chat:admin' | `chat:${string}`
declare const rooms: Rooms<typeof topics>
declare const text: string

describe('Snapshot', () => {
  test('is typed by its topic', () => {
    expect<Snapshot<'news', typeof topics>['topic']>().type.toBe<'news'>()
    expect<Snapshot<'news', typeof topics>['messages']>().type.toBe<StoredMessage<{ headline: string }>[]>()
    expect<Snapshot<`chat:${string}`, typeof topics>['messages'][number]['data']>().type.toBe<{ text: string }>()
    expect<Snapshot<'chat:admin', typeof topics>['messages'][number]['data']>().type.toBe<{ text: string, level: number }>()
    expect<Snapshot<'any', typeof topics>['messages'][number]['data']>().type.toBe<unknown>()
    expect<Pick<Snapshot<'any', typeof topics>, 'id' | 'count' | 'recovered' | 'complete'>>().type.toBe<{ id?: string, count: number, recovered?: boolean, complete: boolean }>()
  })

  test('refuses a name that is not a topic', () => {
    // @ts-expect-error Type '"weather"' does not satisfy the constraint
    expect<Snapshot<'weather', typeof topics>>().type.not.toBe<never>()
  })
})

describe('broadcast', () => {
  test('takes a declared name and its payload', () => {
    expect(rooms.broadcast).type.toBeCallableWith('news', { headline: 'x' })
    expect(rooms.broadcast).type.toBeCallableWith('news', { headline: 'x' }, { except: 'session', key: 'kitchen' })
    expect(rooms.broadcast).type.toBeCallableWith('news', { headline: 'x' }, { key: 'kitchen', version: 7 })
    expect(rooms.broadcast).type.not.toBeCallableWith('news', { headline: 'x' }, { version: '7' })
    expect(rooms.broadcast).type.toBeCallableWith('news', { headline: 'x' }, { mid: '5c0ae6b5-26fd-4f1f-8d93-9d1c4a2b7a10' })
    expect(rooms.broadcast).type.toBeCallableWith('chat:42', { text: 'x' })
    expect(rooms.broadcast).type.toBeCallableWith(`chat:${42}` as const, { text: 'x' })
    expect(rooms.broadcast).type.toBeCallableWith('any', 42)
  })

  test('refuses another name', () => {
    expect(rooms.broadcast).type.not.toBeCallableWith('weather', { headline: 'x' })
    expect(rooms.broadcast).type.not.toBeCallableWith('chat', { text: 'x' })
    expect(rooms.broadcast).type.not.toBeCallableWith(text, { headline: 'x', text: 'x', level: 1 })
  })

  test('refuses another payload', () => {
    expect(rooms.broadcast).type.not.toBeCallableWith('news', { hedline: 'x' })
    expect(rooms.broadcast).type.not.toBeCallableWith('news', { headline: 1 })
    expect(rooms.broadcast).type.not.toBeCallableWith('news', { headline: 'x', other: 1 })
    expect(rooms.broadcast).type.not.toBeCallableWith('news', { text: 'x' })
    expect(rooms.broadcast).type.not.toBeCallableWith('news')
  })

  test('an exact name counts before its family', () => {
    expect(rooms.broadcast).type.toBeCallableWith('chat:admin', { text: 'x', level: 1 })
    expect(rooms.broadcast).type.not.toBeCallableWith('chat:admin', { text: 'x' })
    expect(rooms.broadcast).type.not.toBeCallableWith('chat:42', { text: 'x', level: 1 })
  })

  test('takes each branch of a union', () => {
    expect(rooms.broadcast).type.toBeCallableWith('either', { on: true })
    expect(rooms.broadcast).type.toBeCallableWith('either', null)
    expect(rooms.broadcast).type.not.toBeCallableWith('either', { on: null })
  })

  test('of one of several names takes what each of them takes', () => {
    const either = 'news' as 'news' | 'chat:42'
    expect(rooms.broadcast).type.toBeCallableWith(either, { headline: 'x', text: 'x' })
    expect(rooms.broadcast).type.not.toBeCallableWith(either, { headline: 'x' })
    expect(rooms.broadcast).type.not.toBeCallableWith(either, { text: 'x' })
  })

  test('refuses options that there are not', () => {
    expect(rooms.broadcast).type.not.toBeCallableWith('news', { headline: 'x' }, { expect: 'session' })
    expect(rooms.broadcast).type.not.toBeCallableWith('news', { headline: 'x' }, { except: 1 })
    expect(rooms.broadcast).type.not.toBeCallableWith('news', { headline: 'x' }, { key: 1 })
    expect(rooms.broadcast).type.not.toBeCallableWith('news', { headline: 'x' }, { mid: 1 })
  })

  test('resolves with what was done', () => {
    expect(rooms.broadcast('news', { headline: 'x' })).type.toBe<Promise<BroadcastResult<'news'>>>()
    expect<BroadcastResult<'news'>['topic']>().type.toBe<'news'>()
    expect<BroadcastResult>().type.toBe<{ topic: string, id?: string, local: number, published: boolean, outcome?: 'none' | 'unknown', duplicate?: true }>()
  })
})

describe('request.rooms', () => {
  const requestRooms = {} as RequestRooms<typeof topics>

  test('broadcasts the same, and has nothing to await', () => {
    expect(requestRooms.broadcast('news', { headline: 'x' })).type.toBe<void>()
    expect(requestRooms.broadcast).type.not.toBeCallableWith('news', { text: 'x' })
    expect(requestRooms.broadcast).type.not.toBeCallableWith('weather', {})
    expect(requestRooms.broadcast).type.not.toBeCallableWith('news' as 'news' | 'chat:42', { text: 'x' })
  })
})

describe('a name from outside', () => {
  test('is narrowed by has', () => {
    if (rooms.has(text)) expect(text).type.toBe<Names>()
    else expect(text).type.toBe<string>()
    expect(rooms.has).type.not.toBeCallableWith(1)
  })

  test('can be counted once it is known', () => {
    expect(rooms.count).type.toBeCallableWith('chat:1')
    expect(rooms.count).type.not.toBeCallableWith(text)
    expect(rooms.count('news')).type.toBe<Promise<number>>()
    expect(rooms.count('news', { local: true })).type.toBe<Promise<number>>()
    expect(rooms.count).type.not.toBeCallableWith('news', { local: 'yes' })
  })
})

describe('members', () => {
  test('carry the info of their topic', () => {
    expect(rooms.members('chat:1')).type.toBe<Promise<Member<{ name: string }>[]>>()
    expect(rooms.members('any')).type.toBe<Promise<Member<unknown>[]>>()
    expect(rooms.members('any', { local: true })).type.toBe<Promise<Member<unknown>[]>>()
    expect<Member<{ name: string }>>().type.toBe<{ session: string, user?: string, info?: { name: string } }>()
    expect(rooms.members).type.toBeCallableWith('news', { limit: 10 })
    expect(rooms.members).type.not.toBeCallableWith('weather')
  })

  test('by user carry the sessions of each', () => {
    expect(rooms.members('chat:1', { by: 'user' })).type.toBe<Promise<UserMember<{ name: string }>[]>>()
    expect(rooms.members('any', { by: 'user', limit: 10, local: true })).type.toBe<Promise<UserMember<unknown>[]>>()
    expect(rooms.members('chat:1', { by: 'session' })).type.toBe<Promise<Member<{ name: string }>[]>>()
    expect<UserMember<{ name: string }>>().type.toBe<{ user: string, info?: { name: string }, sessions: string[] }>()
    expect(rooms.members).type.not.toBeCallableWith('chat:1', { by: 'users' })
    expect(rooms.members).type.not.toBeCallableWith('weather', { by: 'user' })
  })

  test('topics are names', () => {
    expect(rooms.topics()).type.toBe<Promise<Names[]>>()
    expect(rooms.topics({ local: true })).type.toBe<Promise<Names[]>>()
  })

  test('are kicked by session, user or topic', () => {
    expect(rooms.kick).type.toBeCallableWith({ topic: 'chat:1', user: 'u1' }, { code: 4005, reason: 'kicked' })
    expect(rooms.kick).type.toBeCallableWith({ session: 's' })
    expect(rooms.kick).type.not.toBeCallableWith({ topic: 'weather' })
    expect(rooms.kick).type.not.toBeCallableWith({ room: 'chat:1' })
    expect(rooms.kick).type.not.toBeCallableWith()
    expect(rooms.kick({ user: 'u1' })).type.toBe<Promise<number>>()
  })

  test('are asked about again by session, user or topic', () => {
    expect(rooms.reauthorize).type.toBeCallableWith({ topic: 'chat:1', user: 'u1', session: 's' })
    expect(rooms.reauthorize).type.not.toBeCallableWith({ topic: 'weather' })
    expect(rooms.reauthorize).type.not.toBeCallableWith({ user: undefined })
    expect(rooms.reauthorize).type.not.toBeCallableWith()
    expect(rooms.reauthorize({ user: 'u1' })).type.toBe<Promise<number>>()
  })

  test('are written to one by one', () => {
    expect(rooms.send('session', 1)).type.toBe<Promise<void>>()
    expect(rooms.sendToUser('user', {})).type.toBe<Promise<{ local: number, published: boolean }>>()
    expect(rooms.sendToUser('user', { text: 'x' }, { topic: 'chat:1' })).type.toBe<Promise<{ local: number, published: boolean }>>()
    expect(rooms.sendToUser).type.toBeCallableWith('user', { text: 'x', level: 1 }, { topic: 'chat:admin' })
    expect(rooms.sendToUser).type.toBeCallableWith('user', 1, { topic: 'any' })
    expect(rooms.sendToUser).type.not.toBeCallableWith('user', { headline: 'x' }, { topic: 'chat:1' })
    expect(rooms.sendToUser).type.not.toBeCallableWith('user', { text: 'x' }, { topic: 'chat:admin' })
    expect(rooms.sendToUser).type.not.toBeCallableWith('user', { text: 'x' }, { topic: 'weather' })
    expect(rooms.sendToUser).type.not.toBeCallableWith('user', { text: 'x' }, { topic: text })
    expect(rooms.sendToUser).type.not.toBeCallableWith('user', { text: 'x' }, { topic: undefined })
    expect(rooms.sendToUser).type.not.toBeCallableWith('user', { text: 'x' }, { topics: 'chat:1' })
    expect(rooms.sendToUser).type.not.toBeCallableWith('user', { headline: 'x', text: 1 }, { topic: 'news' as 'news' | 'chat:1' })
    expect(rooms.ask('session', {}, { timeout: 10 })).type.toBe<Promise<unknown>>()
    expect(rooms.ask).type.not.toBeCallableWith('session', {}, 10)
  })
})

describe('subscribe', () => {
  test('yields the messages of its topic', async () => {
    for await (const message of rooms.subscribe('news')) expect(message).type.toBe<{ headline: string }>()
    for await (const message of rooms.subscribe('chat:42')) expect(message).type.toBe<{ text: string }>()
    for await (const message of rooms.subscribe('chat:admin')) expect(message).type.toBe<{ text: string, level: number }>()
    for await (const message of rooms.subscribe('any')) expect(message).type.toBe<unknown>()
    for await (const message of rooms.subscribe('news' as 'news' | 'chat:42')) expect(message).type.toBe<{ headline: string } | { text: string }>()
  })

  test('takes a signal and a bound', () => {
    expect(rooms.subscribe).type.toBeCallableWith('news', { signal: new AbortController().signal, buffer: 10 })
    expect(rooms.subscribe).type.not.toBeCallableWith('news', { abort: true })
    expect(rooms.subscribe).type.not.toBeCallableWith('weather')
  })
})

describe('a client without a port', () => {
  test('gives the next frame, or the next of one type', () => {
    expect(rooms.inject(text, { mode: 'rooms.raw', since: '0', headers: { a: 'b' } })).type.toBe<Promise<InjectedClient<never, typeof topics>>>()
    expect(rooms.inject).type.not.toBeCallableWith('/news', { mode: 'rooms.v2' })
    const client = {} as InjectedClient
    expect(client.next()).type.toBe<Promise<string | ServerFrame>>()
    expect(client.next('message')).type.toBe<Promise<{ type: 'message', id?: string, data: unknown, from?: string, user?: string, key?: string }>>()
    expect(client.next).type.not.toBeCallableWith('massage')
    expect(client.next({ timeout: 10 })).type.toBe<Promise<string | ServerFrame>>()
    expect(client.next('ack', { timeout: 10 })).type.toBe<Promise<AckFrame>>()
    expect<Extract<AckFrame, { ok: true }>['duplicate']>().type.toBe<true | undefined>()
    expect<keyof Extract<AckFrame, { ok: false }>>().type.toBe<'type' | 'ref' | 'ok' | 'error'>()
    expect(client.next).type.not.toBeCallableWith({ timeout: '10' })
    expect(client.next).type.not.toBeCallableWith('ack', 10)
    expect(client.closed).type.toBe<Promise<{ code: number, reason: string }>>()
  })

  test('is typed by the topic that its path names', async () => {
    const chat = await rooms.inject('/api/rooms/chat:1?since=0')
    expect((await chat.next('message')).data).type.toBe<{ text: string }>()
    expect((await chat.next('direct')).data).type.toBe<{ text: string }>()
    expect((await chat.next('presence', { timeout: 1 })).state).type.toBe<Member<{ name: string }>[] | undefined>()
    expect(await chat.next('ack')).type.toBe<AckFrame>()
    expect((await (await rooms.inject('/news')).next('message')).data).type.toBe<{ headline: string }>()
    expect((await (await rooms.inject('/rooms/chat:admin')).next('message')).data).type.toBe<{ text: string, level: number }>()
    expect((await (await rooms.inject(`/rooms/chat:${text}` as const)).next('message')).data).type.toBe<{ text: string }>()
    expect((await (await rooms.inject('/rooms/any')).next('message')).data).type.toBe<unknown>()
  })

  test('is not typed if its path names no topic that is known', async () => {
    for (const client of [await rooms.inject('/rooms/weather'), await rooms.inject('/news/'), await rooms.inject(text), {} as InjectedClient]) {
      expect((await client.next('message')).data).type.toBe<unknown>()
      expect((await client.next('direct')).data).type.toBe<unknown>()
      expect((await client.next('presence')).state).type.toBe<Member<unknown>[] | undefined>()
    }
    expect((await (await ({} as Rooms).inject('/rooms/news')).next('message')).data).type.toBe<unknown>()
  })

  test('gets private messages of members, which are what members may send', async () => {
    const drafts = {} as Rooms<{ drafts: { message: { static: { id: number }, params: [] }, publish: { static: { text: string }, params: [] } } }>
    expect((await (await drafts.inject('/drafts')).next('direct')).data).type.toBe<{ id: number } | { text: string }>()
  })
})

describe('rooms.asyncapi', () => {
  test('returns a typed document, which the caller may change', () => {
    const rooms = {} as Rooms<typeof topics>
    expect(rooms.asyncapi()).type.toBe<AsyncApiDocument>()
    expect(rooms.asyncapi().asyncapi).type.toBe<'3.0.0'>()
    expect(rooms.asyncapi().components.messages['hello']!).type.toBe<AsyncApiMessage>()
    expect(rooms.asyncapi().components.schemas['news.message']!).type.toBe<AsyncApiSchema>()
    expect(rooms.asyncapi().operations['chat.send']!.action).type.toBe<'send' | 'receive'>()
    rooms.asyncapi().info.title = 'Other'
    expect(rooms.asyncapi).type.toBeCallableWith({ info: { title: 'News', version: '1', contact: { name: 'Ann' } }, servers: { live: { host: 'a.example', protocol: 'wss' } } })
    expect(rooms.asyncapi).type.not.toBeCallableWith({ title: 'News' })
    expect(rooms.asyncapi).type.not.toBeCallableWith({ info: 'News' })
    expect(rooms.asyncapi).type.not.toBeCallableWith({ servers: { live: { host: 'a.example' } } })
  })
})
