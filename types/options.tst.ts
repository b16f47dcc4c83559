import { Type } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import { defineTopics, memoryBroker, type AnySession, type AnyUserPresence, type AsyncApiDocument, type AuthorizeContext, type DirectDetails, type DirectTarget, type Identity, type LeaveReason, type OpenTopics, type RoomsOptions, type Session, type UserPresence } from 'fastify-rooms'
import { describe, expect, test, when } from 'tstyche'

const Chat = Type.Object({ text: Type.String(), user: Type.String() })
const Draft = Type.Object({ text: Type.String() })

/** Nobody may publish. */
export const readOnly = defineTopics({ news: { message: Chat }, sports: { message: Draft } })
export const away = defineTopics({ 'chat:*': { presence: { info: Type.Object({ away: Type.Boolean() }), grace: 5_000 } } })

/** Members send what members receive. */
export const same = defineTopics({ news: { message: Chat }, 'chat:*': { message: Chat, publish: true }, echo: { message: Draft, publish: Draft }, any: { publish: true } })
/** Members send something else. */
export const converted = defineTopics({ news: { message: Chat }, 'chat:*': { message: Chat, publish: Draft, presence: true }, echo: { message: Draft, publish: true } })
type Converted = typeof converted

/** Without the demand for `topics`, which has a test of its own. */
declare function accept<T> (options: Omit<RoomsOptions<T>, 'topics'> & { topics?: T }): void
declare function acceptAll<T> (options: RoomsOptions<T>): void
declare function acceptLoose (options: RoomsOptions): void
const acceptReadOnly = accept<typeof readOnly>
const acceptSame = accept<typeof same>
const acceptConverted = accept<Converted>
const chat = async (session: Session<'chat:*', Converted>, payload: { text: string }) => {
  await session.rooms.broadcast(session.topic, { ...payload, user: session.user ?? 'anonymous' })
}

describe('topics', () => {
  test('are demanded of a program that declared them, which would else be an open lobby', () => {
    expect(acceptAll<typeof same>).type.toBeCallableWith({ topics: same })
    expect(acceptAll<typeof same>).type.not.toBeCallableWith({})
    expect(acceptAll<typeof same>).type.not.toBeCallableWith({ prefix: '/rooms' })
    expect(acceptAll<typeof same>).type.not.toBeCallableWith({ topics: readOnly })
    expect(acceptLoose).type.toBeCallableWith({})
  })
})

describe('onMessage', () => {
  test('is demanded where members send something else than members receive', () => {
    when(acceptConverted).isCalledWith({ topics: converted, onMessage: { 'chat:*': chat } })
    expect(acceptConverted).type.toBeCallableWith({ topics: converted, onMessage: { 'chat:*': chat } })
    expect(acceptConverted).type.toBeCallableWith({ topics: converted, onMessage: { 'chat:*': chat, echo: () => {} } })
    expect(acceptConverted).type.not.toBeCallableWith({ topics: converted })
    expect(acceptConverted).type.not.toBeCallableWith({ topics: converted, onMessage: {} })
    expect(acceptConverted).type.not.toBeCallableWith({ topics: converted, onMessage: { echo: () => {} } })
    expect(acceptConverted).type.not.toBeCallableWith({ topics: converted, onMessage: { 'chat:*': undefined } })
  })

  test('is demanded where members send something and receive anything', () => {
    type Wide = { wide: { publish: typeof Draft } }
    expect(accept<Wide>).type.not.toBeCallableWith({})
    expect(accept<Wide>).type.toBeCallableWith({ onMessage: { wide: () => {} } })
  })

  test('is optional where they are the same', () => {
    expect(acceptSame).type.toBeCallableWith({ topics: same })
    expect(acceptSame).type.toBeCallableWith({ topics: same, onMessage: {} })
    expect(acceptSame).type.toBeCallableWith({ topics: same, onMessage: { 'chat:*': () => {}, echo: async () => 1, any: () => {} } })
  })

  test('is refused where members may not publish', () => {
    expect(acceptReadOnly).type.toBeCallableWith({ topics: readOnly })
    expect(acceptReadOnly).type.not.toBeCallableWith({ topics: readOnly, onMessage: { news: () => {} } })
    expect(acceptSame).type.not.toBeCallableWith({ topics: same, onMessage: { news: () => {} } })
    expect(acceptConverted).type.not.toBeCallableWith({ topics: converted, onMessage: { 'chat:*': chat, news: () => {} } })
  })

  test('goes by topic key, not by name', () => {
    expect(acceptSame).type.not.toBeCallableWith({ topics: same, onMessage: { 'chat:42': () => {} } })
    expect(acceptSame).type.not.toBeCallableWith({ topics: same, onMessage: { weather: () => {} } })
    expect(acceptSame).type.not.toBeCallableWith({ topics: same, onMessage: () => {} })
  })

  test('knows its session and payload', () => {
    acceptConverted({
      topics: converted,
      onMessage: {
        'chat:*': (session, payload) => {
          expect(session).type.toBe<Session<'chat:*', Converted>>()
          expect(payload).type.toBe<{ text: string }>()
        },
        echo: (session, payload) => {
          expect(session).type.toBe<Session<'echo', Converted>>()
          expect(payload).type.toBe<{ text: string }>()
        }
      }
    })
    acceptSame({
      onMessage: {
        'chat:*': (session, payload) => {
          expect(session.key).type.toBe<'chat:*'>()
          expect(payload).type.toBe<{ text: string, user: string }>()
        },
        any: (_session, payload, { key, mid }) => {
          expect(payload).type.toBe<unknown>()
          expect(key).type.toBe<string | undefined>()
          expect(mid).type.toBe<string | undefined>()
        }
      }
    })
  })
})

describe('onDirect', () => {
  test('is optional, and refused if members may not publish', () => {
    expect(acceptSame).type.toBeCallableWith({ topics: same, onDirect: {} })
    expect(acceptSame).type.toBeCallableWith({ topics: same, onDirect: { 'chat:*': () => {}, echo: async () => 1 } })
    expect(acceptConverted).type.toBeCallableWith({ topics: converted, onMessage: { 'chat:*': chat }, onDirect: { echo: () => {} } })
    expect(acceptSame).type.not.toBeCallableWith({ topics: same, onDirect: { news: () => {} } })
    expect(acceptReadOnly).type.not.toBeCallableWith({ topics: readOnly, onDirect: { news: () => {} } })
  })

  test('goes by topic key, not by name', () => {
    expect(acceptSame).type.not.toBeCallableWith({ topics: same, onDirect: { 'chat:42': () => {} } })
    expect(acceptSame).type.not.toBeCallableWith({ topics: same, onDirect: { weather: () => {} } })
    expect(acceptSame).type.not.toBeCallableWith({ topics: same, onDirect: () => {} })
  })

  test('knows its session, its payload and whom it would reach', () => {
    acceptConverted({
      topics: converted,
      onMessage: { 'chat:*': chat },
      onDirect: {
        'chat:*': (session, payload, direct) => {
          expect(session).type.toBe<Session<'chat:*', Converted>>()
          expect(payload).type.toBe<{ text: string }>()
          expect(direct).type.toBe<DirectDetails<'chat:*', Converted>>()
          expect(direct.receivers).type.toBe<readonly AnySession<Converted>[]>()
          expect(direct.deliver()).type.toBe<number>()
          if ('user' in direct.to) expect(direct.to.user).type.toBe<string>()
          else expect(direct.to.session).type.toBe<string>()
        }
      }
    })
  })

  test('delivers a payload of its own topic, or of another one that it names', () => {
    const direct = {} as DirectDetails<'chat:*', Converted>
    expect(direct.deliver).type.toBeCallableWith({ text: 'x', user: 'ann' })
    expect(direct.deliver).type.not.toBeCallableWith({ text: 'x' })
    expect(direct.deliver).type.not.toBeCallableWith(undefined)
    expect(direct.deliver<'echo'>).type.toBeCallableWith({ text: 'x' })
    expect(direct.deliver<'echo'>).type.not.toBeCallableWith({ words: 'x' })
    const open = {} as DirectDetails
    expect(open.deliver).type.toBeCallableWith({ any: 'thing' })
  })
})

describe('hooks', () => {
  test('get a session of any topic', () => {
    acceptReadOnly({
      onJoin (session, request) {
        expect(session).type.toBe<Session<'news', typeof readOnly> | Session<'sports', typeof readOnly>>()
        expect(request).type.toBe<FastifyRequest>()
        if (session.key === 'sports') { expect(session.send).type.toBeCallableWith({ text: 'x' }) }
        return false
      },
      async onJoined (session) {
        expect(session).type.toBe<AnySession<typeof readOnly>>()
        if (session.key === 'sports') {
          await session.send({ text: 'x' })
          expect(session.send).type.not.toBeCallableWith({ text: 'x', user: 1 })
          expect(session.send).type.not.toBeCallableWith({ user: 'ann' })
        }
      },
      onLeave (session, reason) {
        expect(session).type.toBe<AnySession<typeof readOnly>>()
        expect(reason).type.toBe<LeaveReason>()
        expect(reason.code).type.toBe<number>()
      },
      onUserJoin (presence) {
        expect(presence).type.toBe<UserPresence<'news', typeof readOnly> | UserPresence<'sports', typeof readOnly>>()
        expect(presence).type.toBe<AnyUserPresence<typeof readOnly>>()
        expect(presence.user).type.toBe<string>()
        expect(presence).type.not.toHaveProperty('session')
        if (presence.key === 'sports') { expect(presence.topic).type.toBe<'sports'>() }
      },
      onUserLeave (presence, reason) {
        expect(presence).type.toBe<AnyUserPresence<typeof readOnly>>()
        expect(reason).type.toBe<LeaveReason>()
      },
      onError (error, session) {
        expect(error).type.toBe<Error>()
        expect(session).type.toBe<AnySession<typeof readOnly> | undefined>()
      },
      onInvalid (session, fault) {
        expect(session).type.toBe<AnySession<typeof readOnly>>()
        expect(fault.code).type.toBe<string>()
        expect(fault.details).type.toBe<{ path: string, message: string }[] | undefined>()
        return 'close'
      }
    })
    expect(acceptReadOnly).type.not.toBeCallableWith({ onInvalid: () => 'kill' })
    expect(acceptReadOnly).type.not.toBeCallableWith({ onInvalid: 'kill' })
    expect(acceptReadOnly).type.not.toBeCallableWith({ onUserJoin: 'log' })
    expect<UserPresence<'chat:*', typeof away>['info']>().type.toBe<{ away: boolean } | undefined>()
    expect<UserPresence<'chat:*', typeof away>['topic']>().type.toBe<`chat:${string}`>()
    expect<AnyUserPresence<OpenTopics>>().type.toBe<UserPresence<string, OpenTopics>>()
    expect(acceptReadOnly).type.toBeCallableWith({ onJoined: () => {} })
    // The request is released when the member has joined.
    expect(acceptReadOnly).type.not.toBeCallableWith({ onJoined: (_session: unknown, _request: FastifyRequest) => {} })
    expect(acceptReadOnly).type.not.toBeCallableWith({ onJoined: { news: () => {} } })
  })
})

describe('identify', () => {
  test('says who a request is', () => {
    expect<NonNullable<RoomsOptions<typeof same>['identify']>>().type.toBe<(request: FastifyRequest) => Identity | null | Promise<Identity | null>>()
    expect(acceptSame).type.toBeCallableWith({ identify: () => null })
    expect(acceptSame).type.toBeCallableWith({ identify: async () => ({ user: 'u1', info: { name: 'One' } }) })
    expect(acceptSame).type.toBeCallableWith({ identify: () => ({ user: 'u1', expires: new Date() }) })
    expect(acceptSame).type.toBeCallableWith({ identify: () => ({ user: 'u1', expires: Date.now() as number | undefined }) })
    expect(acceptSame).type.not.toBeCallableWith({ identify: () => ({ user: 'u1', expires: '2030-01-01' }) })
    expect(acceptSame).type.not.toBeCallableWith({ identify: () => 'u1' })
    expect(acceptSame).type.not.toBeCallableWith({ identify: () => ({ name: 'u1' }) })
    expect(acceptSame).type.not.toBeCallableWith({ identify: () => undefined })
    expect(acceptSame).type.not.toBeCallableWith({ identify: { user: 'u1' } })
  })
})

describe('onAuth', () => {
  test('says who new credentials are of', () => {
    acceptSame({
      onAuth (session, token) {
        expect(session).type.toBe<AnySession<typeof same>>()
        expect(token).type.toBe<string>()
        return null
      }
    })
    expect(acceptSame).type.toBeCallableWith({ onAuth: async () => ({ user: 'u1', expires: 4_102_444_800 }) })
    expect(acceptSame).type.not.toBeCallableWith({ onAuth: () => true })
  })
})

describe('authorize', () => {
  type Context = AuthorizeContext<Converted>

  test('is asked about these actions', () => {
    expect<Context['action']>().type.toBe<'join' | 'broadcast' | 'history' | 'stay' | 'publish' | 'presence' | 'direct'>()
    expect<Context['topic']>().type.toBe<'news' | 'echo' | `chat:${string}`>()
  })

  test('gets what there is at each', () => {
    acceptConverted({
      onMessage: { 'chat:*': chat },
      authorize (context) {
        if (context.action === 'publish') {
          expect(context.session).type.toBe<AnySession<Converted>>()
          expect(context.payload).type.toBe<unknown>()
          expect(context).type.not.toHaveProperty('request')
          expect(context).type.not.toHaveProperty('target')
          return context.session.user !== undefined
        }
        if (context.action === 'presence') {
          expect(context.session).type.toBe<AnySession<Converted>>()
          expect(context.payload).type.toBe<unknown>()
          expect(context).type.not.toHaveProperty('target')
          return true
        }
        if (context.action === 'direct') {
          expect(context.session).type.toBe<AnySession<Converted>>()
          expect(context.payload).type.toBe<unknown>()
          expect(context.target).type.toBe<DirectTarget>()
          expect(context.target).type.toBe<{ topic: string, session?: string, user?: string }>()
          return context.target.topic === context.topic
        }
        if (context.action === 'stay') {
          expect(context.session).type.toBe<AnySession<Converted>>()
          expect(context).type.not.toHaveProperty('payload')
          expect(context).type.not.toHaveProperty('request')
          return true
        }
        if (context.action === 'history' && 'session' in context) {
          expect(context.session).type.toBe<AnySession<Converted>>()
          return true
        }
        expect(context.action).type.toBe<'join' | 'broadcast' | 'history'>()
        expect(context.request).type.toBe<FastifyRequest>()
        expect(context.identity).type.toBe<Identity | null>()
        expect(context).type.not.toHaveProperty('session')
        expect(context).type.not.toHaveProperty('payload')
        return context.identity?.user === 'admin'
      }
    })
  })

  test('has nothing but action and topic before it is known which', () => {
    const context = {} as Context
    expect(context).type.not.toHaveProperty('request')
    expect(context).type.not.toHaveProperty('session')
    expect(context).type.not.toHaveProperty('payload')
  })

  test('answers with a boolean', () => {
    expect(acceptSame).type.toBeCallableWith({ authorize: () => true })
    expect(acceptSame).type.toBeCallableWith({ authorize: async ({ topic }: { topic: string }) => topic === 'news' })
    expect(acceptSame).type.not.toBeCallableWith({ authorize: () => 'yes' })
    expect(acceptSame).type.not.toBeCallableWith({ authorize: () => {} })
    expect(acceptSame).type.not.toBeCallableWith({ authorize: true })
  })
})

describe('options', () => {
  test('are taken as documented', () => {
    expect(acceptSame).type.toBeCallableWith({
      prefix: '/rooms',
      topics: same,
      origin: ['https://example.com', /\.example\.com$/],
      heartbeat: { interval: 1_000 },
      limits: { connections: 1, perAddress: 1, messages: 1, per: 1, addressMessages: 1, topics: 1, payload: 1, info: 1, pending: 1, work: 1, topicLength: 1, badFrames: 1, handshake: 1, unfinished: 1 },
      slow: { policy: 'close', bytes: 1 },
      drain: { timeout: 1 },
      broker: memoryBroker(),
      websocket: { options: { perMessageDeflate: true, maxPayload: 1 } },
      routes: { socket: { onRequest: [async () => {}] }, broadcast: { preHandler: async () => {}, config: {}, logLevel: 'warn' } }
    })
    expect(acceptSame).type.toBeCallableWith({ heartbeat: false, origin: 'any' })
    expect(acceptSame).type.toBeCallableWith({ asyncapi: true })
    expect(acceptSame).type.toBeCallableWith({
      asyncapi: {
        routePrefix: '/docs',
        info: { title: 'Rooms', license: { name: 'MIT' } },
        servers: { live: { host: 'a.example', protocol: 'wss' } },
        hooks: { onRequest: async () => {}, preHandler: [async () => {}] },
        transform: async (document: AsyncApiDocument, request: FastifyRequest) => request.ip === '::1' ? { ...document, info: { title: 'Local', version: '1' } } : undefined
      }
    })
    expect(acceptSame).type.toBeCallableWith({ asyncapi: { transform: (document: AsyncApiDocument) => { delete document.channels['admins'] } } })
    expect(acceptSame).type.toBeCallableWith({ origin: (origin: string, request: FastifyRequest) => origin === request.host })
  })

  test('that there are not are refused', () => {
    expect(acceptSame).type.not.toBeCallableWith({ wrong: 1 })
    expect(acceptSame).type.not.toBeCallableWith({ asyncapi: '/docs' })
    expect(acceptSame).type.not.toBeCallableWith({ asyncapi: { routePrefix: 'docs' } })
    expect(acceptSame).type.not.toBeCallableWith({ asyncapi: { hooks: { onSend: async () => {} } } })
    expect(acceptSame).type.not.toBeCallableWith({ asyncapi: { transform: () => 7 } })
    expect(acceptSame).type.not.toBeCallableWith({ asyncapi: { servers: { live: 'a.example' } } })
    expect(acceptSame).type.not.toBeCallableWith({ limits: { peyload: 1 } })
    expect(acceptSame).type.not.toBeCallableWith({ heartbeat: true })
    expect(acceptSame).type.not.toBeCallableWith({ heartbeat: { every: 1 } })
    expect(acceptSame).type.toBeCallableWith({ slow: { policy: 'drop', bytes: 1 } })
    expect(acceptSame).type.toBeCallableWith({ slow: { policy: () => 'latest' as const } })
    expect(acceptSame).type.not.toBeCallableWith({ slow: { policy: 'keep' } })
    expect(acceptSame).type.not.toBeCallableWith({ slow: { policy: async () => 'drop' as const } })
    expect(acceptSame).type.not.toBeCallableWith({ origin: 'https://example.com' })
    expect(acceptSame).type.not.toBeCallableWith({ drain: 5_000 })
    expect(acceptSame).type.not.toBeCallableWith({ broker: {} })
    expect(acceptSame).type.not.toBeCallableWith({ topics: readOnly })
  })

  test('for routes leave validation alone', () => {
    expect(acceptSame).type.not.toBeCallableWith({ routes: { broadcast: { attachValidation: true } } })
    expect(acceptSame).type.not.toBeCallableWith({ routes: { broadcast: { validatorCompiler: () => () => true } } })
    expect(acceptSame).type.not.toBeCallableWith({ routes: { broadcast: { schema: {} } } })
    expect(acceptSame).type.not.toBeCallableWith({ routes: { socket: { handler: () => {} } } })
    expect(acceptSame).type.not.toBeCallableWith({ routes: { history: {} } })
  })
})

describe('without declared topics', () => {
  test('names are strings and payloads whatever comes', () => {
    acceptLoose({
      topics: { anything: { message: Chat, publish: Draft } },
      authorize (context) {
        expect(context.topic).type.toBe<string>()
        return true
      },
      onJoin (session) { expect(session).type.toBe<Session>() },
      onJoined (session) { expect(session).type.toBe<Session>() },
      onMessage: {
        '*': async (session, payload: { text: string }) => {
          expect(session).type.toBe<Session>()
          await session.send(payload)
        }
      }
    })
    expect(acceptLoose).type.toBeCallableWith({})
    expect(acceptLoose).type.not.toBeCallableWith({ topics: { anything: { mesage: Chat } } })
    expect(acceptLoose).type.not.toBeCallableWith({ onMessage: () => {} })
    expect(acceptLoose).type.not.toBeCallableWith({ wrong: 1 })
  })
})
