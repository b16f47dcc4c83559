import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { memoryBroker } from '../lib/index.ts'
import type { Session } from '../types/index.ts'
import { connect, createRooms, join, listen, refused, until, type AnyOptions, type Client } from './helpers/app.ts'

type Joined = Client & { hello: { session: string } }

/** An app with members that check for lost messages, and the errors that reached the process. */
async function serve (t: Test, options: AnyOptions = {}, prepare: (app: FastifyInstance) => void = () => {}) {
  const stray: unknown[] = []
  const hear = (error: unknown): void => { stray.push(error) }
  for (const event of ['unhandledRejection', 'uncaughtException'] as const) {
    process.on(event, hear)
    t.teardown(() => { process.removeListener(event, hear) })
  }
  const app = await createRooms(t, options)
  prepare(app)
  const url = await listen(app)
  let n = 0
  return {
    app,
    rooms: app.rooms as any,
    url,
    stray,
    /** Broadcasts a new message, which must be the next message of each given member. */
    async reaches (...members: Joined[]): Promise<void> {
      const data = `number ${++n}`
      await app.rooms.broadcast('news', data)
      for (const member of members) {
        if ((await member.next('message')).data !== data) throw new Error(`${data} was lost`)
      }
    },
    /** Asserts that no state of any member remains. */
    async empties (...members: Joined[]): Promise<void> {
      for (const member of members) await member.close()
      await until(() => app.rooms.stats().connections === 0)
      t.match(app.rooms.stats(), { connections: 0, topics: 0, members: 0, queuedBytes: 0 })
      t.same(stray, [])
    }
  }
}

const bad = (): never => { throw new Error('a getter that throws') }
/** Values that hooks throw or reject with. */
const thrown: [name: string, value: unknown][] = [
  ['undefined', undefined],
  ['null', null],
  ['a symbol', Symbol('s')],
  ['a function', bad],
  ['a frozen object', Object.freeze({})],
  ['a frozen error', Object.freeze(new Error('frozen'))],
  ['an object whose text cannot be had', { toString: bad }],
  ['an object without a prototype', Object.create(null)],
  ['an error whose members cannot be read', Object.defineProperties(new Error('hidden'), { message: { get: bad }, code: { get: bad }, statusCode: { get: bad } })],
  ['an error whose details cannot be read', Object.defineProperty(Object.assign(new Error('hidden'), { statusCode: 400 }), 'details', { get: bad })],
  ['an error whose message is no text', Object.assign(new Error('x'), { statusCode: 400, message: { toString: bad } })],
  ['a proxy that refuses everything', new Proxy(new Error('hidden'), { get: bad, getPrototypeOf: bad, has: bad })],
  ['an error whose cause cannot be read', new Error('outer', { cause: Object.defineProperty(new Error('hidden'), 'message', { get: bad }) })],
  ['an error that is many, one of which cannot be read', new AggregateError([new Error('one'), Object.defineProperty(new Error('hidden'), 'message', { get: bad })])],
  ['an error with a member that looks like one and cannot be read', Object.assign(new Error('outer'), { inner: Object.defineProperty({}, 'message', { get: bad }) })],
  ['an error whose cause is a function that throws', new Error('outer', { cause: bad })],
  ['an error that is its own cause', Object.assign(new Error('circle'), { get cause () { return this } })]
]

t.test('an error that cannot be logged is logged as such, and a logger that throws does not end the process', async t => {
  let isBroken = false
  const frozen = Object.freeze(new Error('frozen'))
  const lines: any[] = []
  const { app, url, reaches, empties } = await serve(t, { onMessage: { '*': () => { throw frozen } } }, app => {
    const { error } = app.log
    app.log.error = function (...given: [any, string]) {
      if (isBroken) throw frozen
      error.apply(app.log, given)
      lines.push(given)
    } as never
  })
  const one = await join(t, `${url}/rooms/news`) as Joined
  t.match(await one.ask({ type: 'message', data: 1 }), { ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' } })
  t.match(lines, [[{ err: { message: /^an error that cannot be logged: / }, session: one.hello.session, topic: 'news' }, 'a hook of fastify-rooms failed']])
  isBroken = true
  t.match(await one.ask({ type: 'message', data: 1 }), { ok: false })
  t.equal(app.rooms.stats().errors, 2)
  await reaches(one)
  await empties(one)
})

/** @param heard - whether the host has an onError; without it failures are logged */
async function failsInEveryWay (t: Test, heard: boolean): Promise<void> {
  let failing = ''
  let how: 'throw' | 'reject' = 'throw'
  let value: unknown
  /** Fails if this hook is the failing one. */
  const hook = (name: string, otherwise: unknown = undefined): any => {
    if (failing !== name) return otherwise
    if (how === 'throw') throw value
    return Promise.reject(value)
  }
  const { app, url, reaches, empties } = await serve(t, {
    origin: () => hook('origin', true),
    identify: () => hook('identify', { user: 'ann' }),
    authorize: ({ action }) => hook(action, true),
    onAuth: () => hook('onAuth', { user: 'ann' }),
    onJoin: () => hook('onJoin'),
    onMessage: { '*': (session, payload) => hook('onMessage') ?? session.rooms.broadcast(session.topic, payload) },
    onLeave: () => hook('onLeave'),
    onInvalid: () => hook('onInvalid', 'answer'),
    ...(heard ? { onError: () => hook('onError') } : {})
  })
  const headers = { origin: 'http://here.example' }
  const [one, two] = [await join(t, `${url}/rooms/news`, { headers }), await join(t, `${url}/rooms/news`, { headers })] as [Joined, Joined]
  const post = async (): Promise<number> => (await app.inject({ method: 'POST', url: '/rooms/news', headers, payload: { a: 1 } })).statusCode
  const upgrade = async (): Promise<number> => (await refused(`${url}/rooms/news`, [], { headers })).status
  const ask = async (frame: object): Promise<unknown> => (await one.ask(frame as never)).ok
  /** Each act returns the answer to the member or request that it concerns. */
  const acts: Record<string, () => Promise<unknown>> = {
    origin: upgrade,
    identify: upgrade,
    join: upgrade,
    broadcast: post,
    onAuth: () => ask({ type: 'auth', token: 'x' }),
    publish: () => ask({ type: 'message', data: 1 }),
    direct: () => ask({ type: 'direct', to: two.hello.session, data: 1 }),
    presence: () => ask({ type: 'presence', info: 1 }),
    onMessage: () => ask({ type: 'message', data: 1 }),
    onInvalid: async () => {
      await one.ask({ type: 'ping' }) // resets the count, because ten bad frames in a row close
      return ask({ type: 'message' })
    },
    onJoin: async () => (await (await connect(t, `${url}/rooms/other`, [], { headers })).closed).code,
    onLeave: async () => (await (await join(t, `${url}/rooms/other`, { headers })).close()).code,
    onError: async () => {
      const leaver = await join(t, `${url}/rooms/other`, { headers })
      failing = 'onLeave'
      const closed = leaver.close()
      await until(() => app.rooms.stats().connections === 2)
      failing = 'onError'
      return (await closed).code
    }
  }
  const expected: Record<string, (told: unknown) => boolean> = { onJoin: told => told === 4003, onLeave: told => told === 1005, onError: told => told === 1005 }
  if (!heard) delete acts['onError']
  for (const [name, act] of Object.entries(acts)) {
    for (how of ['throw', 'reject'] as const) {
      for (const [what, it] of thrown) {
        value = it
        failing = name
        const told = await act()
        failing = ''
        const right = expected[name] ?? (answer => answer === false || (Number(answer) >= 400 && Number(answer) < 600))
        if (!right(told)) t.fail(`${name} ${how}s ${what}: ${String(told)}`)
        await reaches(one, two)
      }
    }
  }
  t.equal(app.rooms.stats().members, 2)
  await empties(one, two)
}

t.test('a hook may throw or reject with any value: the member or request concerned gets an answer, and no other member loses a message', t => failsInEveryWay(t, true))

t.test('without onError the logger gets any value that a hook throws or rejects with, and no member loses a message', t => failsInEveryWay(t, false))

t.test('a payload whose property throws is refused with a code, at whichever read it throws, and is delivered to no member', async t => {
  const schema = Type.Object({ text: Type.String(), more: Type.Optional(Type.Any()) }, { additionalProperties: false })
  const { app, rooms, url, reaches, empties } = await serve(t, { topics: { news: {}, typed: { message: schema }, compiled: { message: Type.Object({ text: Type.String() }) } } })
  const one = await join(t, `${url}/rooms/news`) as Joined
  const watchers = [await join(t, `${url}/rooms/typed`), await join(t, `${url}/rooms/compiled`)] as Joined[]
  const payloads: ((left: number) => object)[] = [
    left => ({ get text () { return left-- > 0 ? 'x' : bad() } }),
    left => ({ text: 'x', more: { toJSON: () => left-- > 0 ? 'x' : bad() } }),
    left => new Proxy({ text: 'x' }, { ownKeys: target => left-- > 0 ? Reflect.ownKeys(target) : bad(), getPrototypeOf: () => left-- > 0 ? Object.prototype : bad() })
  ]
  let refusals = 0
  for (const topic of ['news', 'typed', 'compiled']) {
    for (const make of payloads) {
      for (let left = 0; left < 6; left++) {
        await rooms.broadcast(topic, make(left)).catch((error: { code?: string }) => {
          refusals++
          if (error.code !== 'FST_ROOMS_INVALID_PAYLOAD') t.fail(`${topic}, read ${left} times: ${error}`)
        })
        await rooms.send(one.hello.session, make(left)).catch((error: { code?: string }) => {
          if (error.code !== 'FST_ROOMS_INVALID_PAYLOAD') t.fail(`${topic}, read ${left} times: ${error}`)
        })
      }
    }
  }
  t.ok(refusals > 10)
  while (one.received.length > 1) one.received.pop()
  t.equal(app.rooms.stats().errors, 0)
  const last = await join(t, `${url}/rooms/news`) as Joined
  await reaches(last)
  await empties(one, last, ...watchers)
})

t.test('a connection that breaks during a fan-out affects no other member', async t => {
  const sockets: any[] = []
  const { rooms, url, stray, reaches, empties } = await serve(t, { onJoin: (_session, request) => { sockets.push(request.raw.socket) } })
  for (const breakIt of [
    (socket: any) => { socket.destroy() },
    (socket: any) => { socket.destroy(Object.assign(new Error('write EPIPE'), { code: 'EPIPE' })) },
    (socket: any) => { socket.resetAndDestroy() },
    (socket: any) => { socket.end() },
    (socket: any) => { socket.write = () => { socket.destroy(); return false } },
    (socket: any) => { socket.write = () => { throw new Error('write EPIPE') } }
  ]) {
    sockets.length = 0
    const members: Joined[] = []
    for (let n = 0; n < 5; n++) members.push(await join(t, `${url}/rooms/news`) as Joined)
    // One message waits for the end of the turn and one comes after it; the broken connection is due both.
    const waiting = rooms.broadcast('news', 'waits')
    breakIt(sockets[2])
    await waiting
    const others = members.filter((_, index) => index !== 2)
    for (const member of others) t.equal((await member.next('message')).data, 'waits', String(breakIt))
    await reaches(...others)
    sockets[2].destroy()
    await empties(...others)
  }
  t.same(stray, [])
})

t.test('each hook may end, add, kick and message members, and earlier messages arrive', async t => {
  let act: (session: Session, hook: string) => unknown = () => {}
  const done: string[] = []
  const once = (session: Session, hook: string): unknown => {
    if (done.includes(hook) || session.user !== 'actor') return undefined
    done.push(hook)
    return act(session, hook)
  }
  const { rooms, url, reaches, empties } = await serve(t, {
    identify: request => ({ user: (request.query as { user?: string }).user ?? 'nobody' }),
    authorize: context => {
      if (context.action === 'publish' || context.action === 'direct' || context.action === 'presence') once(context.session as Session, context.action)
      return true
    },
    onJoin: session => { once(session as Session, 'onJoin') },
    onMessage: { '*': (session, payload) => { once(session, 'onMessage'); if (payload === 'throw') throw new Error('as it was told to') } },
    onInvalid: session => { once(session as Session, 'onInvalid'); return 'answer' },
    onLeave: session => { once(session as Session, 'onLeave') },
    onError: (_error, session) => { if (session !== undefined) once(session as Session, 'onError') }
  })
  const acts: [name: string, act: typeof act][] = [
    ['leaves', session => { session.close() }],
    ['leaves twice', session => { session.close(); session.close(4007) }],
    ['kicks itself', session => session.rooms.kick({ session: session.id })],
    ['kicks everybody', session => session.rooms.kick({ topic: 'news' })],
    ['brings somebody', async session => { (await session.rooms.inject('/rooms/news')).close() }],
    ['speaks to everybody', session => { for (let n = 0; n < 300; n++) session.rooms.broadcast('news', `spoken ${n}`) }],
    ['speaks, and kicks everybody', session => { session.rooms.broadcast('news', 'spoken'); return session.rooms.kick({ topic: 'news' }) }]
  ]
  for (const [name, way] of acts) {
    act = way
    done.length = 0
    const stays = await join(t, `${url}/rooms/other`) as Joined
    const frames: Record<string, object | string | undefined> = {
      onJoin: undefined,
      publish: { type: 'message', data: 1 },
      onMessage: { type: 'message', data: 1 },
      onError: { type: 'message', data: 'throw' },
      onInvalid: { type: 'message' },
      direct: { type: 'direct', to: stays.hello.session, data: 1 },
      presence: { type: 'presence', info: 1 },
      onLeave: undefined
    }
    for (const [hook, frame] of Object.entries(frames)) {
      const watcher = await join(t, `${url}/rooms/news`)
      await rooms.broadcast('news', 'before')
      const actor = await connect(t, `${url}/rooms/news?user=actor`)
      if (frame !== undefined) actor.send(frame)
      if (hook === 'onLeave') actor.socket.close()
      await until(() => done.includes(hook))
      t.equal((await watcher.next('message')).data, 'before', `${name} from ${hook}`)
      actor.socket.terminate()
      watcher.socket.close()
      const { code } = await watcher.closed
      if (![1005, 4005].includes(code)) t.fail(`${name} from ${hook}: the watcher is closed with ${code}`)
      await until(async () => (await rooms.count('news')) === 0)
    }
    t.same([...done].sort(), ['direct', 'onError', 'onInvalid', 'onJoin', 'onLeave', 'onMessage', 'presence', 'publish'], name)
    await rooms.broadcast('other', 'still here')
    t.equal((await stays.next('message')).data, 'still here')
    await stays.close()
  }
  const last = await join(t, `${url}/rooms/news`) as Joined
  await reaches(last)
  await empties(last)
})

t.test('each hook may close the app, twice, and hooks that never settle delay it by drain.timeout at most', async t => {
  const never = (): Promise<never> => new Promise(() => {})
  for (const where of ['onJoin', 'onMessage', 'authorize', 'onLeave', 'onInvalid', 'between two broadcasts', 'drain first']) {
    const closed: Promise<unknown>[] = []
    const close = (): void => { closed.push(app.close(), app.close()) }
    const { app, rooms, url, stray } = await serve(t, {
      drain: { timeout: 400 },
      onJoin: session => { if (where === 'onJoin' && session.user === 'closer') close() },
      identify: request => ({ user: String((request.query as any).user) }),
      authorize: ({ action, payload }: any) => { if (where === 'authorize' && action === 'publish' && payload === 'close') close(); return true },
      onMessage: {
        '*': (_session, payload) => {
          if (where === 'onMessage' && payload === 'close') {
            close()
            return Promise.all(closed) // waits for a close that waits for this handler
          }
          return payload === 'never' ? never() : undefined
        }
      },
      onLeave: session => { if (where === 'onLeave' && session.user === 'closer') close(); return never() },
      onInvalid: () => { if (where === 'onInvalid') close(); return 'answer' }
    })
    const [other, stuck] = [await join(t, `${url}/rooms/news?user=other`), await join(t, `${url}/rooms/news?user=stuck`)]
    stuck.send({ type: 'message', data: 'never' })
    const closer = await connect(t, `${url}/rooms/news?user=closer`)
    closer.send({ type: 'message', data: 'close' })
    if (where === 'onInvalid') closer.send('{')
    if (where === 'onLeave') closer.socket.close()
    if (where === 'between two broadcasts') {
      const before = rooms.broadcast('news', 'before')
      close()
      await rooms.broadcast('news', 'after')
      await before
    }
    if (where === 'drain first') closed.push(rooms.drain(), rooms.drain(), app.close())
    await until(() => closed.length > 0)
    await Promise.all(closed)
    t.same(await other.closed, { code: 1001, reason: 'going_away' }, where)
    if (where === 'between two broadcasts') t.same(other.received.map(text => JSON.parse(text)).filter(({ type }) => type === 'message').map(({ data }) => data), ['before', 'after'])
    t.match(rooms.stats(), { connections: 0, members: 0, topics: 0 }, where)
    t.same(stray, [], where)
  }
})

t.test('a broker that breaks its contract by throwing fails the publication, and nothing else', async t => {
  const inner = memoryBroker()
  let failure: unknown
  const broker = Object.assign(Object.create(inner), {
    capabilities: inner.capabilities,
    start: inner.start.bind(inner),
    attach: inner.attach.bind(inner),
    detach: inner.detach.bind(inner),
    control: inner.control.bind(inner),
    close: inner.close.bind(inner),
    historyStats: inner.historyStats!.bind(inner),
    publish: (batch: never) => {
      if (failure !== undefined) throw failure
      return inner.publish(batch)
    }
  })
  const errors: unknown[] = []
  const { app, rooms, url, reaches, empties } = await serve(t, { broker, onError: error => { errors.push(error) } }, app => {
    app.post('/order', async request => {
      request.rooms.broadcast('news', 'ordered')
      return 'ok'
    })
  })
  const [one, two] = [await join(t, `${url}/rooms/news`), await join(t, `${url}/rooms/news`)] as [Joined, Joined]
  failure = new Error('broken')
  t.match(await rooms.broadcast('news', 1), { published: false })
  t.match(await one.ask({ type: 'message', data: 1 }), { ok: false, error: { code: 'FST_ROOMS_BROKER_DOWN' } })
  t.match((await app.inject({ method: 'POST', url: '/rooms/news', payload: '1', headers: { 'content-type': 'application/json' } })).json(), { published: false })
  t.equal((await app.inject({ method: 'POST', url: '/order' })).statusCode, 200, 'the response was sent already')
  await until(() => rooms.stats().brokerFaults === 4)
  t.match(errors[0], { code: 'FST_ROOMS_BROKER_FAULT', cause: { message: 'broken' } }, 'onError hears of broker faults at most once a second, and stats count all of them')
  failure = undefined
  await reaches(one, two)
  await empties(one, two)
})
