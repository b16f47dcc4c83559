import { Type } from '@sinclair/typebox'
import Fastify, { type FastifyBaseLogger, type FastifyInstance, type FastifyRequest, type FastifyTypeProvider } from 'fastify'
import fastifyRooms, { defineTopics, fastifyRooms as named, type RequestRooms, type Rooms, type Session } from 'fastify-rooms'
import { describe, expect, test } from 'tstyche'

const app = Fastify()
export const other = defineTopics({
  news: { message: Type.Object({ headline: Type.String() }) },
  'chat:*': { message: Type.Object({ text: Type.String(), user: Type.String() }), publish: Type.Object({ text: Type.String() }) }
})
type Other = typeof other

describe('an open lobby', () => {
  test('registers with no options, and with those of Fastify', () => {
    expect(app.register).type.toBeCallableWith(fastifyRooms)
    expect(app.register).type.toBeCallableWith(named)
    expect(app.register).type.toBeCallableWith(fastifyRooms, {})
    expect(app.register).type.toBeCallableWith(fastifyRooms, { prefix: '/rooms' })
    expect(app.register).type.toBeCallableWith(fastifyRooms, { prefix: '/rooms', logLevel: 'warn', logSerializers: {} })
    expect(app.register).type.toBeCallableWith(fastifyRooms, { heartbeat: false, onMessage: { '*': () => 1 } })
  })

  test('refuses an option that there is not', () => {
    expect(app.register).type.not.toBeCallableWith(fastifyRooms, { wrong: 1 })
    expect(app.register).type.not.toBeCallableWith(fastifyRooms, { prefix: 1 })
    expect(app.register).type.not.toBeCallableWith(fastifyRooms, { limits: { wrong: 1 } })
    expect(app.register).type.not.toBeCallableWith(fastifyRooms, 'rooms')
  })

  test('takes topics that nobody registered, loosely', () => {
    expect(app.register).type.toBeCallableWith(fastifyRooms, { topics: other, onMessage: { 'chat:*': () => {} } })
    expect(app.register).type.not.toBeCallableWith(fastifyRooms, { topics: { news: { mesage: {} } } })
  })

  test('gives hooks their types', () => {
    app.register(fastifyRooms, {
      onJoin (session, request) {
        expect(session).type.toBe<Session>()
        expect(request).type.toBe<FastifyRequest>()
      },
      authorize: context => {
        expect(context.topic).type.toBe<string>()
        return context.action !== 'direct'
      }
    })
  })
})

describe('decorators', () => {
  test('take any name and any payload where no topics are registered', async () => {
    expect(app.rooms).type.toBe<Rooms>()
    expect(app.rooms.broadcast).type.toBeCallableWith('anything', { at: 'all' })
    expect(app.rooms.broadcast).type.toBeCallableWith(String(Math.random()), null)
    expect(app.rooms.broadcast).type.not.toBeCallableWith(1, null)
    expect(app.rooms.broadcast).type.not.toBeCallableWith('anything')
    for await (const message of app.rooms.subscribe('anything')) expect(message).type.toBe<unknown>()
    const name = String(Math.random())
    if (app.rooms.has(name)) { expect(name).type.toBe<string>() }
  })

  test('are on requests, too', () => {
    app.post('/orders', async request => {
      expect(request.rooms).type.toBe<RequestRooms>()
      expect(request.rooms.broadcast('orders', request.body)).type.toBe<void>()
      return { ok: true }
    })
  })
})

describe('a second app in one program', () => {
  test('is typed by a type argument', () => {
    const chat = async (session: Session<'chat:*', Other>, payload: { text: string }) => session.rooms.broadcast(session.topic, { ...payload, user: 'u1' })
    expect(app.register).type.toBeCallableWith(fastifyRooms<Other>, { topics: other, prefix: '/rooms', onMessage: { 'chat:*': chat } })
    expect(app.register).type.not.toBeCallableWith(fastifyRooms<Other>, { topics: other })
    expect(app.register).type.not.toBeCallableWith(fastifyRooms<Other>, { topics: other, onMessage: { 'chat:*': chat, news: chat } })
    expect(app.register).type.not.toBeCallableWith(fastifyRooms<Other>, { topics: { weather: {} }, onMessage: { 'chat:*': chat } })
    expect(app.register).type.not.toBeCallableWith(fastifyRooms<Other>, { topics: other, onMessage: { 'chat:*': chat }, wrong: 1 })
    app.register(fastifyRooms<Other>, {
      topics: other,
      onMessage: {
        'chat:*': (session, payload) => {
          expect(session).type.toBe<Session<'chat:*', Other>>()
          expect(payload).type.toBe<{ text: string }>()
        }
      },
      authorize (context) {
        expect(context.topic).type.toBe<'news' | `chat:${string}`>()
        return true
      }
    })
  })

  test('and its rooms by getDecorator', () => {
    const rooms = app.getDecorator<Rooms<Other>>('rooms')
    expect(rooms).type.toBe<Rooms<Other>>()
    expect(rooms.broadcast).type.toBeCallableWith('news', { headline: 'x' })
    expect(rooms.broadcast).type.not.toBeCallableWith('news', { text: 'x' })
    expect(rooms.broadcast).type.not.toBeCallableWith('weather', {})
  })

  test('which can be handed on', () => {
    const publish = (target: { rooms: Rooms<Other> }) => target.rooms.broadcast('chat:1', { text: 'x', user: 'u1' })
    expect(publish).type.toBeCallableWith({ rooms: app.getDecorator<Rooms<Other>>('rooms') })
  })
})

describe('the plugin', () => {
  test('is a plugin', () => {
    expect(fastifyRooms).type.toBeCallableWith({} as FastifyInstance, {})
    expect(fastifyRooms({} as FastifyInstance, {})).type.toBe<Promise<void>>()
  })

  test('fits apps of other servers, loggers and type providers', () => {
    const secure = Fastify({ https: {} })
    expect(secure.register).type.toBeCallableWith(fastifyRooms, { prefix: '/rooms' })
    expect(secure.register).type.not.toBeCallableWith(fastifyRooms, { wrong: 1 })
    const logging = Fastify({ loggerInstance: {} as FastifyBaseLogger & { own: true } })
    expect(logging.register).type.toBeCallableWith(fastifyRooms, { prefix: '/rooms' })
    expect(logging.register).type.toBeCallableWith(fastifyRooms<Other>, { topics: other, onMessage: { 'chat:*': () => {} } })
    expect(logging.register).type.not.toBeCallableWith(fastifyRooms, { wrong: 1 })
    const typed = app.withTypeProvider<{ validator: string, serializer: string } & FastifyTypeProvider>()
    expect(typed.register).type.toBeCallableWith(fastifyRooms, { prefix: '/rooms' })
    expect(typed.register).type.not.toBeCallableWith(fastifyRooms, { wrong: 1 })
    expect(typed.rooms).type.toBe<Rooms>()
  })
})
