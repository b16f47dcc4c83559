import Fastify from 'fastify'
import fastifyRooms, { type AnySession, type AuthorizeContext, type Message, type RequestRooms, type Rooms, type RoomsOptions, type Session, type TopicName, type Topics } from 'fastify-rooms'
import { describe, expect, test } from 'tstyche'
import { topics } from './topics.ts'

type Names = 'dailyNews' | 'chat:admin' | `chat:${string}`
const app = Fastify()
const chat = async (session: Session<'chat:*'>, payload: { text: string }) => session.rooms.broadcast(session.topic, { ...payload, user: 'u1' })

describe('with Register', () => {
  test('the topics of the program are known everywhere', () => {
    expect<Topics>().type.toBe<typeof topics>()
    expect<TopicName>().type.toBe<Names>()
    expect<Message<'chat:42'>>().type.toBe<{ text: string, user: string }>()
    expect<AnySession['key']>().type.toBe<'dailyNews' | 'chat:*' | 'chat:admin'>()
    expect<AuthorizeContext['topic']>().type.toBe<Names>()
    expect<Rooms>().type.toBe<Rooms<typeof topics>>()
    expect<RoomsOptions>().type.toBe<RoomsOptions<typeof topics>>()
  })

  test('app.rooms is checked', async () => {
    expect(app.rooms).type.toBe<Rooms<typeof topics>>()
    expect(app.rooms.broadcast).type.toBeCallableWith('dailyNews', [{ name: 'visits', value: 3 }])
    expect(app.rooms.broadcast).type.toBeCallableWith('chat:42', { text: 'x', user: 'u1' })
    expect(app.rooms.broadcast).type.toBeCallableWith('chat:admin', 1)
    expect(app.rooms.broadcast).type.not.toBeCallableWith('dailyNews', [{ nme: 'visits', value: 3 }])
    expect(app.rooms.broadcast).type.not.toBeCallableWith('chat:admin', { text: 'x', user: 'u1' })
    expect(app.rooms.broadcast).type.not.toBeCallableWith('weather', {})
    for await (const message of app.rooms.subscribe('dailyNews')) expect(message).type.toBe<{ name: string, value: number }[]>()
    const name = String(Math.random())
    if (app.rooms.has(name)) { expect(name).type.toBe<Names>() }
  })

  test('request.rooms is checked', () => {
    app.post('/', async request => {
      expect(request.rooms).type.toBe<RequestRooms<typeof topics>>()
      expect(request.rooms.broadcast('chat:admin', 1)).type.toBe<void>()
      expect(request.rooms.broadcast).type.not.toBeCallableWith('chat:admin', 'x')
      expect(request.rooms.broadcast).type.not.toBeCallableWith('weather', {})
    })
  })

  test('options are checked', () => {
    expect(app.register).type.toBeCallableWith(fastifyRooms, { topics, prefix: '/rooms', onMessage: { 'chat:*': chat } })
    expect(app.register).type.not.toBeCallableWith(fastifyRooms, { topics })
    expect(app.register).type.not.toBeCallableWith(fastifyRooms, { topics, onMessage: { 'chat:*': chat, dailyNews: () => {} } })
    expect(app.register).type.not.toBeCallableWith(fastifyRooms, { topics, onMessage: { 'chat:*': chat }, wrong: 1 })
    expect(app.register).type.not.toBeCallableWith(fastifyRooms, { topics: {}, onMessage: { 'chat:*': chat } })
    app.register(fastifyRooms, {
      topics,
      onMessage: {
        'chat:*': (session, payload) => {
          expect(session).type.toBe<Session<'chat:*'>>()
          expect(payload).type.toBe<{ text: string }>()
        }
      },
      onJoin (session) {
        if (session.key === 'chat:*') { expect(session.info).type.toBe<{ name: string } | undefined>() }
      },
      async onJoined (session) {
        if (session.key === 'chat:*') expect(session).type.toBe<Session<'chat:*'>>()
      }
    })
  })
})

describe('a second app beside the registered topics', () => {
  type Other = { weather: { publish: true } }

  test('uses its own topics', () => {
    expect(app.register).type.toBeCallableWith(fastifyRooms<Other>, { topics: { weather: { publish: true } } })
    expect(app.register).type.not.toBeCallableWith(fastifyRooms<Other>, { topics, onMessage: { 'chat:*': chat } })
    expect(app.getDecorator<Rooms<Other>>('rooms').broadcast).type.toBeCallableWith('weather', 1)
    expect(app.getDecorator<Rooms<Other>>('rooms').broadcast).type.not.toBeCallableWith('chat:admin', 1)
  })
})
