import t, { type Test } from 'tap'
import { connect, createRooms, join, listen, until, type LogLine } from './helpers/app.ts'

function deferred<T = void> () {
  let resolve!: (value: T) => void
  let reject!: (error: unknown) => void
  const promise = new Promise<T>((_resolve, _reject) => { resolve = _resolve; reject = _reject })
  return { promise, resolve, reject }
}

/** Errors that would have ended the process. */
function watchProcess (t: Test): unknown[] {
  const faults: unknown[] = []
  const note = (fault: unknown): void => { faults.push(fault) }
  process.on('unhandledRejection', note)
  process.on('uncaughtException', note)
  t.teardown(() => {
    process.off('unhandledRejection', note)
    process.off('uncaughtException', note)
  })
  return faults
}

const turns = async (): Promise<void> => { for (let i = 0; i < 5; i++) await new Promise(resolve => setImmediate(resolve)) }
const withStatus = (statusCode: number, code?: string): Error => Object.assign(new Error(`status ${statusCode}`), { statusCode }, code === undefined ? {} : { code })

t.test('messages that onJoin sends follow hello, whether it settles at once or later', async t => {
  for (const wait of [undefined, turns]) {
    const app = await createRooms(t, {
      onJoin: (session, request) => {
        session.send(`state: ${session.state}`)
        session.send(request.url)
        return wait?.().then(() => session.send('later'))
      }
    })
    const url = await listen(app)
    const client = await join(t, `${url}/rooms/news?token=x`)
    t.equal(client.hello.topic, 'news', 'hello is the first frame')
    t.equal((await client.next('direct')).data, 'state: joining')
    t.equal((await client.next('direct')).data, '/rooms/news?token=x')
    if (wait !== undefined) t.equal((await client.next('direct')).data, 'later')
  }
})

t.test('other members do not see a member before onJoin has accepted it', async t => {
  const gate = deferred()
  const app = await createRooms(t, { onJoin: () => gate.promise })
  const url = await listen(app)
  const client = await connect(t, `${url}/rooms/news`)
  await until(() => app.rooms.stats().connections === 1)
  t.equal(await app.rooms.count('news'), 0)
  t.same(await app.rooms.members('news'), [])
  t.match(await app.rooms.broadcast('news', 'before'), { local: 0 })
  gate.resolve()
  t.equal((await client.next('hello')).topic, 'news')
  t.equal(await app.rooms.count('news'), 1)
  await app.rooms.broadcast('news', 'after')
  t.equal((await client.next('message')).data, 'after')
})

t.test('an onJoin that returns undefined accepts', async t => {
  for (const onJoin of [() => {}, async () => {}, () => true, () => null, async () => 0]) {
    const app = await createRooms(t, { onJoin })
    await join(t, `${await listen(app)}/rooms/news`)
    t.equal(await app.rooms.count('news'), 1)
  }
})

t.test('frames that a member sends while onJoin runs are handled after hello, in order', async t => {
  const gate = deferred()
  const seen: unknown[] = []
  const app = await createRooms(t, { onJoin: () => gate.promise, onMessage: { '*': (_session, payload) => { seen.push(payload) } } })
  const client = await connect(t, `${await listen(app)}/rooms/news`)
  for (let i = 0; i < 40; i++) client.send({ type: 'message', data: i })
  client.send({ type: 'ping', ref: 'last' })
  await until(() => app.rooms.stats().connections === 1)
  t.same(seen, [])
  gate.resolve()
  t.equal((await client.next()).type, 'hello')
  t.match(await client.next('ack'), { ref: 'last', ok: true })
  t.same(seen, Array.from({ length: 40 }, (_, i) => i))
})

t.test('an onJoin that refuses closes with the code of its reason, and only a failure goes to onError', async t => {
  const plain = new Error('database password wrong')
  const refusals: [string, () => unknown, number, string, boolean][] = [
    ['return false', () => false, 4003, 'forbidden', false],
    ['resolve false', async () => false, 4003, 'forbidden', false],
    ['throw', () => { throw plain }, 4003, 'forbidden', true],
    ['reject with a text', () => Promise.reject('text'), 4003, 'forbidden', true], // eslint-disable-line prefer-promise-reject-errors
    ['401', () => { throw withStatus(401) }, 4001, 'unauthorized', false],
    ['403', async () => { throw withStatus(403) }, 4003, 'forbidden', false],
    ['404', async () => { throw withStatus(404) }, 4004, 'no_such_topic', false],
    ['429', () => { throw withStatus(429) }, 4101, 'rate_limited', false],
    ['another 4xx', () => { throw withStatus(418) }, 4003, 'forbidden', false],
    ['503', () => { throw withStatus(503) }, 4003, 'forbidden', true]
  ]
  for (const [name, onJoin, code, reason, isFailure] of refusals) {
    t.test(name, async t => {
      const errors: Error[] = []
      let left = 0
      const app = await createRooms(t, { onJoin, onError: error => { errors.push(error) }, onLeave: () => { left++ } })
      const url = await listen(app)
      const client = await connect(t, `${url}/rooms/news`)
      t.match(await client.next(), { type: 'bye', code, reason }, 'bye is the only frame')
      t.same(await client.closed, { code, reason })
      t.equal(client.received.length, 1)
      t.equal(errors.length, isFailure ? 1 : 0)
      t.equal(left, 0, 'a refused join never became a member')
      t.match(app.rooms.stats(), { refused: 1, members: 0, topics: 0, errors: isFailure ? 1 : 0 })

      const raw = await connect(t, `${url}/rooms/news`, 'rooms.raw')
      t.same(await raw.closed, { code, reason })
      t.same(raw.received, [])
    })
  }
})

t.test('an invalid payload that onJoin sends is a failure of the host, not of the peer', async t => {
  const errors: Error[] = []
  const app = await createRooms(t, { onJoin: session => session.send(1n), onError: error => { errors.push(error) } })
  const client = await connect(t, `${await listen(app)}/rooms/news`)
  t.same(await client.closed, { code: 4003, reason: 'forbidden' })
  t.match(errors, [{ code: 'FST_ROOMS_INVALID_PAYLOAD' }])
  t.equal(errors.length, 1, 'reported once although it was thrown twice')
})

t.test('messages to a member that is then refused are never written', async t => {
  const app = await createRooms(t, { onJoin: session => { session.send('secret'); return false } })
  const client = await connect(t, `${await listen(app)}/rooms/news`)
  await client.closed
  t.notMatch(client.received.join(), 'secret')
})

t.test('onJoin may close the session itself', async t => {
  let left = 0
  const app = await createRooms(t, { onJoin: session => { session.close(4321, 'later') }, onLeave: () => { left++ } })
  const client = await connect(t, `${await listen(app)}/rooms/news`)
  t.match(await client.next(), { type: 'bye', code: 4321, reason: 'later' })
  t.same(await client.closed, { code: 4321, reason: 'later' })
  t.ok(left <= 1)
  t.equal(await app.rooms.count('news'), 0)
})

t.test('a peer that leaves while onJoin runs: onLeave is called exactly if onJoin then accepts', async t => {
  for (const accepts of [true, false]) {
    t.test(accepts ? 'accepted' : 'refused', async t => {
      const gate = deferred<boolean>()
      const left: unknown[] = []
      const errors: Error[] = []
      const finished = deferred()
      const app = await createRooms(t, {
        onJoin: session => gate.promise.finally(() => { setImmediate(finished.resolve) }).then(answer => { session.send('too late').catch(() => {}); return answer }),
        onLeave: (session, reason) => { left.push([session.state, reason]) },
        onError: error => { errors.push(error) }
      })
      const client = await connect(t, `${await listen(app)}/rooms/news`)
      await until(() => app.rooms.stats().connections === 1)
      client.socket.close(4444, 'gone')
      await until(() => app.rooms.stats().connections === 0)
      t.same(left, [], 'onJoin has not settled yet')
      gate.resolve(accepts)
      await finished.promise
      t.same(left, accepts ? [['closed', { code: 4444, reason: 'gone' }]] : [])
      t.same(errors, [])
      t.match(app.rooms.stats(), { members: 0, topics: 0 })
    })
  }
})

t.test('the return value of onMessage is the data of the ack', async t => {
  const app = await createRooms(t, { onMessage: { '*': async (session, payload) => ({ to: session.topic, payload }) } })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  t.same(await client.ask({ type: 'message', data: [1] }, 7), { type: 'ack', ref: 7, ok: true, data: { to: 'news', payload: [1] } })
  const count = client.received.length
  client.send({ type: 'message', data: 1 })
  await client.ask({ type: 'ping' })
  t.equal(client.received.length, count + 1, 'a message without a ref is not acknowledged')
})

t.test('synchronous handlers and handlers without a return value are acknowledged as well', async t => {
  const app = await createRooms(t, { onMessage: { '*': (_session, payload) => payload === 'x' ? 'sync' : undefined } })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  t.same(await client.ask({ type: 'message', data: 'x' }, 1), { type: 'ack', ref: 1, ok: true, data: 'sync' })
  t.same(await client.ask({ type: 'message', data: 'y' }, 2), { type: 'ack', ref: 2, ok: true })
})

t.test('messages of one member are handled in order, and do not delay those of other members', async t => {
  const gates = [deferred(), deferred()]
  const seen: string[] = []
  const app = await createRooms(t, {
    onMessage: {
      '*': async (session, payload) => {
        if (typeof payload === 'number') await gates[payload]!.promise
        seen.push(`${session.user}:${payload}`)
      }
    },
    identify: request => ({ user: String(request.headers['x-user']) })
  })
  const url = await listen(app)
  const anna = await join(t, `${url}/rooms/news`, { headers: { 'x-user': 'anna' } })
  const ben = await join(t, `${url}/rooms/news`, { headers: { 'x-user': 'ben' } })
  anna.send({ type: 'message', data: 0 })
  anna.send({ type: 'message', data: 1 })
  anna.send({ type: 'message', data: 'last' })
  gates[1]!.resolve()
  await ben.ask({ type: 'message', data: 'between' })
  t.same(seen, ['ben:between'])
  gates[0]!.resolve()
  await anna.ask({ type: 'message', data: 'end' })
  t.same(seen, ['ben:between', 'anna:0', 'anna:1', 'anna:last', 'anna:end'])
})

t.test('an error of onMessage without a status goes to onError, and the member gets none of its text', async t => {
  for (const fail of [() => { throw new Error('password=1') }, async () => { throw new Error('password=1') }, async () => { throw withStatus(500, 'INNER') }]) {
    const errors: [Error, any][] = []
    const app = await createRooms(t, { onMessage: { '*': fail }, onError: (error, session) => { errors.push([error, session]) } })
    const client = await join(t, `${await listen(app)}/rooms/news`)
    const answer = await client.ask({ type: 'message', data: 1 }, 1)
    t.same(answer, { type: 'ack', ref: 1, ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED', message: 'the server failed on this message' } })
    client.send({ type: 'message', data: 1 })
    t.same(await client.next('error'), { type: 'error', error: { code: 'FST_ROOMS_HANDLER_FAILED', message: 'the server failed on this message' } })
    t.equal(errors.length, 2)
    t.equal(errors[0]![1].id, client.hello.session)
    t.match(app.rooms.stats(), { errors: 2, members: 1 }, 'the connection stays open')
  }
})

t.test('the member gets an error of onMessage with a status below 500, with its code', async t => {
  const errors: Error[] = []
  const app = await createRooms(t, { onMessage: { '*': async () => { throw withStatus(409, 'APP_TAKEN') } }, onError: error => { errors.push(error) } })
  const url = await listen(app)
  const client = await join(t, `${url}/rooms/news`)
  t.same(await client.ask({ type: 'message', data: 1 }, 1), { type: 'ack', ref: 1, ok: false, error: { code: 'APP_TAKEN', message: 'status 409' } })
  t.same(errors, [])

  const raw = await connect(t, `${url}/rooms/news`, 'rooms.raw')
  raw.send('1')
  t.same(await raw.closed, { code: 4003, reason: 'forbidden' }, 'a raw member gets the error as a close code')
})

t.test('an invalid payload that the handler broadcasts is a failure of the handler', async t => {
  const errors: Error[] = []
  const app = await createRooms(t, { onMessage: { '*': session => session.rooms.broadcast(session.topic, undefined) }, onError: error => { errors.push(error) } })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  t.match(await client.ask({ type: 'message', data: 1 }), { ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' } })
  t.match(errors, [{ code: 'FST_ROOMS_INVALID_PAYLOAD' }])
})

t.test('a return value that cannot be serialized is a failure of the handler', async t => {
  const errors: Error[] = []
  const faults = watchProcess(t)
  const app = await createRooms(t, { onMessage: { '*': (_session, payload) => payload === 'sync' ? 1n : Promise.resolve(1n) }, onError: error => { errors.push(error) } })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  for (const data of ['sync', 'async']) t.match(await client.ask({ type: 'message', data }), { ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' } })
  t.equal(errors.length, 2)
  t.same(faults, [])
})

t.test('a handler may throw any value: the member gets an answer, later messages are handled, and the process stays alive', async t => {
  const faults = watchProcess(t)
  const errors: Error[] = []
  const circle: Record<string, unknown> = {}
  circle.circle = circle
  const thrown: unknown[] = ['text', undefined, null, 7, Symbol('s'), Object.create(null), { toString () { throw new Error('no') } }, Object.assign(withStatus(400), { details: circle }), Object.assign(withStatus(400), { details: 1n })]
  const app = await createRooms(t, {
    onMessage: {
      '*': (_session, { index, later }) => {
        if (later) return Promise.reject(thrown[index])
        throw thrown[index]
      }
    },
    onError: error => { errors.push(error) }
  })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  for (const later of [false, true]) {
    for (const index of thrown.keys()) t.match(await client.ask({ type: 'message', data: { index, later } }), { ok: false }, String(index))
  }
  for (const error of errors) t.type(error, Error)
  t.equal(errors.length, 14, 'all errors except those with a status')
  await turns()
  t.same(faults, [])
})

t.test('without onMessage a message is broadcast unchanged, and its sender gets it before the ack', async t => {
  const app = await createRooms(t, { identify: () => ({ user: 'anna' }) })
  const url = await listen(app)
  const [one, two] = [await join(t, `${url}/rooms/news`), await join(t, `${url}/rooms/news`)]
  one.send({ type: 'message', data: { text: 'hi' }, ref: 1 })
  const ack = await one.next('ack')
  const { id } = ack as { id: string }
  const expected = { type: 'message', id, data: { text: 'hi' }, from: one.hello.session, user: 'anna' }
  t.same(ack, { type: 'ack', ref: 1, ok: true, id })
  t.same(one.received.map(frame => JSON.parse(frame)).filter(({ type }) => type === 'message'), [expected], 'the echo came before its ack')
  t.same(await two.next('message'), expected)
})

t.test('onLeave is called once, after the session has left its room, with code and reason', async t => {
  const left: unknown[] = []
  const app = await createRooms(t, {
    onLeave: async (session, reason) => { left.push({ id: session.id, state: session.state, reason, count: await session.rooms.count('news') }) }
  })
  const url = await listen(app)
  const client = await join(t, `${url}/rooms/news`)
  client.socket.close(4444, 'bye')
  await until(() => left.length > 0)
  t.same(left, [{ id: client.hello.session, state: 'closed', reason: { code: 4444, reason: 'bye' }, count: 0 }])

  const kicked = await join(t, `${url}/rooms/news`)
  await app.rooms.kick({ session: kicked.hello.session })
  await kicked.closed
  const cut = await join(t, `${url}/rooms/news`)
  cut.socket.terminate()
  await until(() => left.length === 3)
  t.match(left.slice(1), [{ reason: { code: 4005, reason: 'kicked' } }, { reason: { code: 1006, reason: '' } }])
  await turns()
  t.equal(left.length, 3)
})

t.test('onLeave is called after the last message of the member is handled', async t => {
  const gate = deferred()
  const events: unknown[] = []
  const app = await createRooms(t, {
    onMessage: { '*': async (_session, payload) => { await gate.promise; events.push(payload) } },
    onLeave: () => { events.push('left') }
  })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  client.send({ type: 'message', data: 1 })
  client.send({ type: 'message', data: 2 })
  await until(() => app.rooms.stats().received === 2)
  await client.close()
  await until(() => app.rooms.stats().connections === 0)
  t.equal(await app.rooms.count('news'), 0, 'the session is not a member any more')
  t.same(events, [])
  gate.resolve()
  await until(() => events.length === 3)
  t.same(events, [1, 2, 'left'])
})

t.test('messages that wait when the server ends the session are dropped', async t => {
  const gate = deferred()
  const events: unknown[] = []
  const app = await createRooms(t, {
    onMessage: { '*': async (_session, payload) => { await gate.promise; events.push(payload) } },
    onLeave: () => { events.push('left') }
  })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  client.send({ type: 'message', data: 1 })
  client.send({ type: 'message', data: 2 })
  await until(() => app.rooms.stats().received === 2)
  await app.rooms.kick({ topic: 'news' })
  gate.resolve()
  await client.closed
  await until(() => events.length === 2)
  await turns()
  t.same(events, ['left', 1])
})

t.test('a failure is logged only without onError', async t => {
  const logs: LogLine[] = []
  const app = await createRooms(t, { onMessage: { '*': () => { throw new Error('oops') } } }, logs)
  const client = await join(t, `${await listen(app)}/rooms/news`)
  await client.ask({ type: 'message', data: 1 })
  const errors = logs.filter(({ level }) => level >= 50)
  t.match(errors, [{ msg: 'a hook of fastify-rooms failed', err: { message: 'oops' }, session: client.hello.session, topic: 'news' }])
  t.equal(errors.length, 1)

  const quiet: LogLine[] = []
  const other = await createRooms(t, { onMessage: { '*': () => { throw new Error('oops') } }, onError: () => {} }, quiet)
  const member = await join(t, `${await listen(other)}/rooms/news`)
  await member.ask({ type: 'message', data: 1 })
  t.same(quiet.filter(({ level }) => level >= 50), [])
})

t.test('an onError that fails is logged', async t => {
  const faults = watchProcess(t)
  for (const onError of [() => { throw new Error('from onError') }, async () => { throw new Error('from onError') }]) {
    const logs: LogLine[] = []
    const app = await createRooms(t, { onMessage: { '*': () => { throw new Error('oops') } }, onError }, logs)
    const client = await join(t, `${await listen(app)}/rooms/news`)
    t.match(await client.ask({ type: 'message', data: 1 }), { ok: false })
    await until(() => logs.some(({ level }) => level >= 50))
    t.match(logs.filter(({ level }) => level >= 50), [{ err: { message: 'from onError' } }])
  }
  t.same(faults, [])
})

t.test('each hook may throw or reject: only the member concerned is affected', async t => {
  const faults = watchProcess(t)
  for (const how of ['throw', 'reject']) {
    t.test(how, async t => {
      const fail = (name: string) => (): never => {
        const error = new Error(name)
        if (how === 'throw') throw error
        return Promise.reject(error) as never
      }
      const errors: string[] = []
      const app = await createRooms(t, {
        onLeave: fail('onLeave'),
        onInvalid: fail('onInvalid') as never,
        onMessage: { '*': fail('onMessage') },
        authorize: context => context.action === 'join' || context.action === 'publish' || fail('authorize')(),
        onError: (error): void => { errors.push(error.message); fail('onError')() }
      })
      const url = await listen(app)
      const [client, other] = [await join(t, `${url}/rooms/news`), await join(t, `${url}/rooms/news`)]
      t.match(await client.ask({ type: 'message', data: 1 }), { ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' } })
      t.match(await client.ask({ type: 'presence', info: 1 }), { ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' } })
      t.match(await client.ask({ type: 'direct', to: other.hello.session, data: 1 }), { ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' } })
      t.match(await client.ask({ type: 'message' }), { ok: false, error: { code: 'FST_ROOMS_BAD_FRAME' } }, 'a bad frame is answered as without onInvalid')
      await client.close()
      await until(() => errors.includes('onLeave'))
      t.same([...new Set(errors)].sort(), ['authorize', 'onInvalid', 'onLeave', 'onMessage'])
      await app.rooms.broadcast('news', 'still here')
      t.equal((await other.next('message')).data, 'still here')
    })
  }
  await turns()
  t.same(faults, [])
})

t.test('a send that is not awaited never ends the process', async t => {
  const faults = watchProcess(t)
  const errors: Error[] = []
  const sessions: any[] = []
  const app = await createRooms(t, { onJoin: session => { sessions.push(session) }, onError: error => { errors.push(error) } })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  sessions[0].send(undefined)
  await turns()
  t.match(errors, [{ code: 'FST_ROOMS_INVALID_PAYLOAD' }], 'onError gets the error')
  await client.close()
  await until(() => sessions[0].state === 'closed')
  sessions[0].send('late')
  await turns()
  t.equal(errors.length, 1, 'a member that has left does not count as a failure')
  await t.rejects(sessions[0].send('late'), { code: 'FST_ROOMS_SESSION_CLOSED', statusCode: 410 })
  t.same(faults, [])
})
