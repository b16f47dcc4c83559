import { Type } from '@sinclair/typebox'
import t, { type Test } from 'tap'
import type { DirectDetails, Session } from '../types/index.ts'
import { connect, createRooms, join, listen, until, type AnyOptions } from './helpers/app.ts'

type OnDirect = (session: Session, payload: any, direct: DirectDetails<any, any>) => unknown

async function serve (t: Test, onDirect: OnDirect, options: AnyOptions = {}) {
  const errors: (Error & { code?: string })[] = []
  const app = await createRooms(t, {
    identify: request => typeof request.headers['x-user'] === 'string' ? { user: request.headers['x-user'] } : null,
    onError: error => { errors.push(error) },
    onDirect: { '*': onDirect },
    ...options
  })
  const url = await listen(app)
  const as = (user: string, topic = 'chat') => join(t, `${url}/rooms/${topic}`, { headers: { 'x-user': user } })
  return { app, rooms: app.rooms as any, url, errors, as }
}

const refused = (code: string) => ({ type: 'ack', ok: false, error: { code } })

t.test('issue 8: onDirect gets a private message before it is delivered, and delivers it', async t => {
  const seen: unknown[] = []
  const { rooms, as } = await serve(t, (session, payload, direct) => {
    seen.push([session.user, payload, direct.to, direct.receivers.map(({ id }) => id)])
    t.throws(() => { (direct.receivers as unknown[]).push(session) }, TypeError, 'receivers is read-only')
    const local = direct.deliver()
    seen.push(local)
  })
  const [ann, bob1, bob2] = [await as('ann'), await as('bob'), await as('bob')]
  t.same(await ann.ask({ type: 'direct', to: 'user:bob', data: { hi: 1 } }, 1), { type: 'ack', ref: 1, ok: true, data: { local: 2 } })
  for (const bob of [bob1, bob2]) t.same(await bob.next('direct'), { type: 'direct', data: { hi: 1 }, from: ann.hello.session, user: 'ann' })
  t.same(await ann.ask({ type: 'direct', to: bob2.hello.session, data: 2 }, 2), { type: 'ack', ref: 2, ok: true, data: { local: 1 } })
  t.same(seen, [
    ['ann', { hi: 1 }, { user: 'bob' }, [bob1.hello.session, bob2.hello.session]], 2,
    ['ann', 2, { session: bob2.hello.session }, [bob2.hello.session]], 1
  ])
  t.match(rooms.stats(), { directs: 3, broadcasts: 0, errors: 0 })
})

t.test('onDirect is called even if no session is reached, so that it can store the message, and its return value is the data of the ack', async t => {
  const stored: unknown[] = []
  const { as } = await serve(t, async (_session, payload, { to, receivers, deliver }) => {
    stored.push([to, payload, receivers.length])
    return payload === 'quiet' ? undefined : { id: stored.length, local: deliver() }
  })
  const [ann, there] = [await as('ann'), await as('bob', 'other')]
  t.match(await ann.ask({ type: 'direct', to: 'user:bob', data: 'later' }), { ok: true, data: { id: 1, local: 0 } }, 'a session in another topic is not reached')
  t.match(await ann.ask({ type: 'direct', to: there.hello.session, data: 'quiet' }), { ok: true, data: { local: 0 } })
  t.match(await ann.ask({ type: 'direct', to: 'user:cleo', data: 'x' }), { ok: true, data: { id: 3, local: 0 } })
  t.same(stored, [[{ user: 'bob' }, 'later', 0], [{ session: there.hello.session }, 'quiet', 0], [{ user: 'cleo' }, 'x', 0]])
})

t.test('onDirect decides whether a message is delivered, and may change it', async t => {
  const { as, rooms, url } = await serve(t, (_session, payload, direct) => {
    if (payload === 'drop') return 'dropped'
    direct.deliver({ text: String(payload).toUpperCase() })
  })
  const [ann, bob] = [await as('ann'), await as('bob')]
  const raw = await connect(t, `${url}/rooms/chat`, 'rooms.raw', { headers: { 'x-user': 'bob' } })
  await until(async () => await rooms.count('chat') === 3)
  t.match(await ann.ask({ type: 'direct', to: 'user:bob', data: 'drop' }), { ok: true, data: 'dropped' })
  t.match(await ann.ask({ type: 'direct', to: 'user:bob', data: 'hi' }), { ok: true, data: { local: 2 } })
  t.same(await bob.next('direct'), { type: 'direct', data: { text: 'HI' }, from: ann.hello.session, user: 'ann' })
  t.equal(await raw.text(), '{"text":"HI"}')
})

t.test('an error of onDirect refuses like an error of onMessage', async t => {
  let failure: Error = Object.assign(new Error('no letters at night'), { statusCode: 403, code: 'APP_NIGHT' })
  let asynchronous = false
  const { as, errors, rooms } = await serve(t, () => {
    if (asynchronous) return Promise.reject(failure)
    throw failure
  })
  const ann = await as('ann')
  for (asynchronous of [false, true]) {
    t.match(await ann.ask({ type: 'direct', to: 'user:ann', data: 1 }), { ok: false, error: { code: 'APP_NIGHT', message: 'no letters at night' } })
  }
  t.same(errors, [])
  failure = new Error('the database is away')
  t.match(await ann.ask({ type: 'direct', to: 'user:ann', data: 1 }), { ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED', message: 'the server failed on this message' } })
  t.match(errors, [{ message: 'the database is away' }])
  t.match(rooms.stats(), { directs: 0, refusals: { forbidden: 2, failed: 1 } })
})

t.test('a changed payload is validated by the topic of each receiver, and an invalid one is an error of the host', async t => {
  let changed: unknown[] = [{ text: 1 }]
  const topics = { chat: { message: Type.Object({ text: Type.String() }), publish: true }, numbers: { message: Type.Number() } } as const
  const { as, errors } = await serve(t, () => {}, {
    topics,
    authorize: () => true,
    onDirect: { chat: (_session: Session, payload: any, direct: DirectDetails<any, any>) => { payload.text += '!'; direct.deliver(...changed as []) } }
  })
  const [ann, bob] = [await as('ann'), await as('bob')]
  const ask = (to: string) => ann.ask({ type: 'direct', to, data: { text: 'hi' } })
  t.match(await ask('user:bob'), refused('FST_ROOMS_HANDLER_FAILED'))
  t.match(errors.splice(0), [{ code: 'FST_ROOMS_INVALID_PAYLOAD', details: [{ path: '/text' }] }])
  changed = [undefined]
  t.match(await ask('user:bob'), refused('FST_ROOMS_HANDLER_FAILED'), 'undefined is a payload of its own')
  t.match(errors.splice(0), [{ code: 'FST_ROOMS_INVALID_PAYLOAD' }])
  changed = [{ text: 'ok' }]
  t.match(await ask('user:bob'), { ok: true, data: { local: 1 } })
  t.match(await bob.next('direct'), { data: { text: 'ok' } }, 'the first delivered payload')
  const numbers = await as('bob', 'numbers')
  t.match(await ask('user:bob'), refused('FST_ROOMS_HANDLER_FAILED'), 'one of two topics refuses the payload')
  t.match(errors.splice(0), [{ code: 'FST_ROOMS_INVALID_PAYLOAD' }])
  changed = []
  t.match(await ask('user:bob'), { ok: true, data: { local: 2 } }, 'without an argument: the payload of the member')
  for (const client of [bob, numbers]) t.match(await client.next('direct'), { data: { text: 'hi' } }, 'the payload is unchanged, and the other payloads were delivered to no member')
})

t.test('an invalid payload, or a topic without publish, does not reach onDirect', async t => {
  let calls = 0
  const { as } = await serve(t, () => {}, {
    topics: { chat: { message: Type.String(), publish: true }, news: {} },
    onDirect: { chat: () => { calls++ } }
  })
  const [ann, reader] = [await as('ann'), await as('ann', 'news')]
  t.match(await ann.ask({ type: 'direct', to: 'user:ann', data: 1 }), refused('FST_ROOMS_INVALID_PAYLOAD'))
  t.match(await reader.ask({ type: 'direct', to: 'user:ann', data: 'x' }), refused('FST_ROOMS_FORBIDDEN'))
  t.equal(calls, 0)
  t.match(await ann.ask({ type: 'direct', to: 'user:ann', data: 'x' }), { ok: true })
  t.equal(calls, 1)
})

t.test('onDirect gets the receivers that authorize permits; without receivers, authorize is asked about the topic of the sender', async t => {
  for (const asynchronous of [false, true]) {
    const asked: unknown[] = []
    const reached: string[][] = []
    let own = true
    const { as, rooms } = await serve(t, (_session, _payload, { receivers, deliver }) => {
      reached.push(receivers.map(({ topic }) => topic).sort())
      deliver()
    }, {
      authorize: (context: any) => {
        if (context.action !== 'direct') return true
        asked.push(context.target)
        const allowed = context.target.topic === 'chat' ? own : context.target.topic !== 'closed'
        return asynchronous ? Promise.resolve(allowed) : allowed
      }
    })
    const [ann, closed] = [await as('ann'), await as('cleo', 'closed')]
    await as('bob')
    await as('bob', 'other')
    await as('bob', 'closed')
    t.match(await ann.ask({ type: 'direct', to: 'user:bob', data: 1 }), { ok: true, data: { local: 2 } })
    t.same(reached.splice(0), [['chat', 'other']])
    t.equal(asked.splice(0).length, 3)

    // Neither the answer nor the last call of authorize tells an unreachable session from one that does not exist.
    for (own of [true, false]) {
      for (const to of [closed.hello.session, 'nowhere', 'user:cleo', 'user:nobody']) {
        const ack: any = await ann.ask({ type: 'direct', to, data: 2 }, 5)
        if (own) t.same(ack, { type: 'ack', ref: 5, ok: true, data: { local: 0 } }, to)
        else t.same(ack, { type: 'ack', ref: 5, ok: false, error: { code: 'FST_ROOMS_FORBIDDEN', message: 'not allowed: direct' } }, to)
        const target = to.startsWith('user:') ? { user: to.slice(5) } : { session: to }
        t.same(asked.splice(0).at(-1), { topic: 'chat', ...target })
      }
      t.same(reached.splice(0), own ? [[], [], [], []] : [])
    }
    t.match(await ann.ask({ type: 'direct', to: 'user:ann', data: 3 }), refused('FST_ROOMS_FORBIDDEN'))
    t.equal(asked.length, 1, 'authorize is asked once about the topic of the sender')
    t.same(reached, [])
    await closed.ask({ type: 'ping' })
    t.notOk(closed.received.some(text => text.includes('"direct"')))
    t.equal(rooms.stats().directs, 2)
  }
})

t.test('an authorize that fails refuses before onDirect, unless it permits another topic', async t => {
  let calls = 0
  const { as, errors } = await serve(t, () => { calls++ }, {
    authorize: (context: any) => {
      if (context.action !== 'direct' || context.target.topic === 'fine') return true
      throw new Error('of the host')
    }
  })
  const ann = await as('ann')
  for (const to of ['user:ann', 'nobody']) t.match(await ann.ask({ type: 'direct', to, data: 1 }), refused('FST_ROOMS_HANDLER_FAILED'), to)
  await as('ann', 'other')
  await ann.ask({ type: 'direct', to: 'user:ann', data: 1 })
  t.equal(calls, 0)
  await as('ann', 'fine')
  t.match(await ann.ask({ type: 'direct', to: 'user:ann', data: 1 }), { ok: true })
  t.equal(calls, 1)
  t.ok(errors.every(({ message }) => message === 'of the host'))
})

t.test('a session that ends while onDirect waits gets no message, and a kicked sender delivers nothing', async t => {
  let go = (): void => {}
  let result: number | undefined
  let calls = 0
  const { rooms, as } = await serve(t, async (_session, _payload, { deliver }) => {
    calls++
    await new Promise<void>(resolve => { go = resolve })
    result = deliver()
  })
  const [ann, bob, dan] = [await as('ann'), await as('bob'), await as('dan')]
  const gone = await as('bob')
  const ack = ann.ask({ type: 'direct', to: 'user:bob', data: 1 })
  await until(() => calls === 1)
  await rooms.kick({ session: gone.hello.session })
  go()
  t.match(await ack, { ok: true, data: { local: 1 } })
  t.match(await bob.next('direct'), { data: 1 })

  ann.send({ type: 'direct', to: 'user:bob', data: 2 })
  await until(() => calls === 2)
  await rooms.kick({ user: 'ann' })
  go()
  await until(() => result === 0)
  dan.send({ type: 'direct', to: 'user:bob', data: 3 })
  await until(() => calls === 3)
  await dan.close()
  await until(async () => await rooms.count('chat') === 1)
  go()
  t.match(await bob.next('direct'), { data: 3, user: 'dan' }, 'a sender that left by itself has sent its message')
})

t.test('a sender that is kicked while authorize is asked does not reach onDirect', async t => {
  let answer: ((allowed: boolean) => void) | undefined
  let calls = 0
  const { rooms, as } = await serve(t, () => { calls++ }, {
    authorize: (context: any) => context.action !== 'direct' || new Promise<boolean>(resolve => { answer = resolve })
  })
  const ann = await as('ann')
  ann.send({ type: 'direct', to: 'user:ann', data: 1 })
  await until(() => answer !== undefined)
  await rooms.kick({ user: 'ann' })
  answer!(true)
  for (let n = 0; n < 5; n++) await new Promise(resolve => setImmediate(resolve))
  t.equal(calls, 0)
})

t.test('calls of onDirect keep the order of messages, and count for limits.work', async t => {
  const order: unknown[] = []
  const gates: (() => void)[] = []
  const { rooms, as } = await serve(t, async (_session, payload) => {
    order.push(payload)
    await new Promise<void>(resolve => { gates.push(resolve) })
  }, { limits: { work: 1 }, onMessage: { '*': (_session, payload) => { order.push(payload) } } })
  const [ann, bob] = [await as('ann'), await as('bob')]
  ann.send({ type: 'direct', to: 'user:bob', data: 1 })
  ann.send({ type: 'message', data: 2 })
  await until(() => gates.length === 1)
  t.equal(rooms.stats().working, 1)
  t.match(await bob.ask({ type: 'direct', to: 'user:ann', data: 'too much' }), refused('FST_ROOMS_OVERLOADED'))
  t.match(await bob.ask({ type: 'message', data: 'too much' }), refused('FST_ROOMS_OVERLOADED'))
  gates.pop()!()
  await until(() => order.length === 2)
  t.same(order, [1, 2])
  t.match(rooms.stats(), { working: 0, refusals: { work: 2 } })
})

t.test('onDirect of one topic does not affect other topics', async t => {
  let calls = 0
  const { as } = await serve(t, () => {}, {
    topics: { plain: { publish: true }, watched: { publish: true } },
    onDirect: { watched: () => { calls++ } }
  })
  const plain = await as('ann', 'plain')
  t.match(await plain.ask({ type: 'direct', to: 'user:nobody', data: 1 }), refused('FST_ROOMS_NO_SUCH_SESSION'))
  t.match(await plain.ask({ type: 'direct', to: 'user:ann', data: 1 }), { ok: true, data: { local: 1 } })
  t.equal(calls, 0)
})

t.test('onDirect of an unknown topic, or of one without publish, is refused', async t => {
  const topics = { news: {}, 'chat:*': { publish: true } } as const
  const register = (options: AnyOptions) => createRooms(t, options).then(() => undefined, error => error)
  const noop = () => {}
  t.match(await register({ topics, onDirect: { weather: noop } }), { code: 'FST_ROOMS_INVALID_OPTION', message: 'option "onDirect" takes functions by topic key; got "weather"' })
  t.match(await register({ topics, onDirect: { news: noop } }), { code: 'FST_ROOMS_INVALID_OPTION', message: /"onDirect.news" takes nothing: members of this topic may not publish/ })
  t.match(await register({ onDirect: { '*': 1 as never } }), { code: 'FST_ROOMS_INVALID_OPTION', message: /"onDirect.\*" takes a function of \(session, payload, direct\); got 1/ })
  t.equal(await register({ topics, onDirect: { 'chat:*': noop } }), undefined)
})

t.test('authorize is not asked about the sender\'s own topic if it has permitted another topic, or refused one with a reason', async t => {
  const asked: string[] = []
  const failures: Error[] = []
  const { as } = await serve(t, (_session, _payload, direct) => ({ local: direct.deliver() }), {
    authorize: (context: any) => {
      if (context.action !== 'direct') return true
      asked.push(context.target.topic)
      const [failure] = failures
      if (failure !== undefined) throw failure
      return true
    }
  })
  const [ann] = [await as('ann'), await as('bob', 'other')]
  t.match(await ann.ask({ type: 'direct', to: 'user:bob', data: 1 }), { ok: true, data: { local: 1 } })
  failures.push(Object.assign(new Error('slower'), { statusCode: 429, code: 'APP_SLOWER' }))
  t.match(await ann.ask({ type: 'direct', to: 'user:bob', data: 1 }), refused('APP_SLOWER'))
  t.same(asked, ['other', 'other'])
})
