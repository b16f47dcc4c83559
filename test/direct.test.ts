import { Type } from '@sinclair/typebox'
import t, { type Test } from 'tap'
import { connect, createRooms, join, listen, until, type AnyOptions } from './helpers/app.ts'

async function serve (t: Test, options: AnyOptions = {}) {
  const errors: Error[] = []
  const app = await createRooms(t, {
    identify: request => typeof request.headers['x-user'] === 'string' ? { user: request.headers['x-user'] } : null,
    onError: error => { errors.push(error) },
    ...options
  })
  const url = await listen(app)
  const as = (user: string, topic = 'chat') => join(t, `${url}/rooms/${topic}`, { headers: { 'x-user': user } })
  return { app, rooms: app.rooms as any, url, errors, as }
}

const gone = { ok: false, error: { code: 'FST_ROOMS_NO_SUCH_SESSION' } }

t.test('a private message to a session reaches that session only, and names its sender', async t => {
  const { rooms, as } = await serve(t)
  const [ann, bob, eve] = [await as('ann'), await as('bob'), await as('eve')]
  const ack = await ann.ask({ type: 'direct', to: bob.hello.session, data: { hi: 1 } }, 7)
  t.same(ack, { type: 'ack', ref: 7, ok: true, data: { local: 1 } })
  await bob.next('direct')
  t.equal(bob.received.at(-1), `{"type":"direct","data":{"hi":1},"from":"${ann.hello.session}","user":"ann"}`)
  await rooms.broadcast('chat', 'end')
  for (const client of [ann, eve]) {
    await client.next('message')
    t.notOk(client.received.some(text => text.includes('"direct"')))
  }
  t.match(rooms.stats(), { directs: 1, broadcasts: 1 })
})

t.test('a private message of an anonymous member has no user, and one without a ref is not answered', async t => {
  const { url } = await serve(t)
  const client = await join(t, `${url}/rooms/chat`)
  client.send({ type: 'direct', to: client.hello.session, data: null })
  t.same(await client.next('direct'), { type: 'direct', data: null, from: client.hello.session })
  await client.ask({ type: 'ping' })
  t.equal(client.received.filter(text => text.includes('"ack"')).length, 1)
})

t.test('a private message to a user reaches all sessions of that user, other sessions of the sender included', async t => {
  const { as } = await serve(t)
  const [bob1, bob2, eve] = [await as('bob'), await as('bob'), await as('eve')]
  t.match(await bob1.ask({ type: 'direct', to: 'user:bob', data: 1 }), { ok: true, data: { local: 2 } })
  const direct = { type: 'direct', data: 1, from: bob1.hello.session, user: 'bob' }
  t.same(bob1.received.map(text => JSON.parse(text)).filter(({ type }) => type === 'direct'), [direct])
  t.same(await bob2.next('direct'), direct)
  t.match(await eve.ask({ type: 'direct', to: 'user:user:x', data: 1 }), gone)
})

t.test('a receiver that is absent or has left is answered with "no such session"', async t => {
  const { rooms, as } = await serve(t)
  const [ann, bob] = [await as('ann'), await as('bob')]
  const { session } = bob.hello
  await bob.close()
  await until(async () => await rooms.count('chat') === 1)
  for (const to of [session, 'user:bob', 'nobody', '__proto__', 'user:__proto__']) t.match(await ann.ask({ type: 'direct', to, data: 1 }), gone, to)
  const long: any = await ann.ask({ type: 'direct', to: 'x'.repeat(10_000), data: 1 })
  t.ok(long.error.message.length < 200, 'a long name is truncated in the answer')
  ann.send({ type: 'direct', to: 'nobody', data: 1 })
  t.match(await ann.next('error'), { error: gone.error })
})

t.test('a session that is joining is not a receiver yet', async t => {
  let open = (): void => {}
  let joining = ''
  const { rooms, url, as } = await serve(t, {
    onJoin: session => {
      if (session.user !== 'bob') return
      joining = session.id
      return new Promise<void>(resolve => { open = resolve })
    }
  })
  const ann = await as('ann')
  await connect(t, `${url}/rooms/chat`, [], { headers: { 'x-user': 'bob' } })
  await until(() => joining !== '')
  t.match(await ann.ask({ type: 'direct', to: joining, data: 1 }), gone)
  t.match(await ann.ask({ type: 'direct', to: 'user:bob', data: 1 }), gone)
  open()
  await until(async () => await rooms.count('chat') === 2)
  t.match(await ann.ask({ type: 'direct', to: joining, data: 1 }), { ok: true })
})

t.test('without authorize, sessions in other topics are not receivers', async t => {
  const { as } = await serve(t)
  const [ann, here, there] = [await as('ann'), await as('bob'), await as('bob', 'other')]
  t.match(await ann.ask({ type: 'direct', to: there.hello.session, data: 1 }), gone)
  t.match(await ann.ask({ type: 'direct', to: 'user:bob', data: 2 }), { ok: true, data: { local: 1 } })
  t.match(await here.next('direct'), { data: 2 })
  await there.ask({ type: 'ping' })
  t.notOk(there.received.some(text => text.includes('"direct"')))
})

t.test('authorize is asked once per topic with receivers, gets the target, and may be asynchronous', async t => {
  for (const asynchronous of [false, true]) {
    const asked: any[] = []
    const { as } = await serve(t, {
      authorize: (context: any) => {
        if (context.action !== 'direct') return true
        asked.push({ topic: context.topic, user: context.session.user, payload: context.payload, target: context.target })
        const allowed = context.target.topic !== 'closed'
        return asynchronous ? Promise.resolve(allowed) : allowed
      }
    })
    const [ann, one, two, there, closed] = [await as('ann'), await as('bob'), await as('bob'), await as('bob', 'other'), await as('bob', 'closed')]
    t.match(await ann.ask({ type: 'direct', to: 'user:bob', data: 1 }), { ok: true, data: { local: 3 } })
    const context = { topic: 'chat', user: 'ann', payload: 1 }
    t.same(asked.splice(0).sort((a, b) => a.target.topic < b.target.topic ? -1 : 1), [
      { ...context, target: { topic: 'chat', user: 'bob' } },
      { ...context, target: { topic: 'closed', user: 'bob' } },
      { ...context, target: { topic: 'other', user: 'bob' } }
    ])
    for (const client of [one, two, there]) t.match(await client.next('direct'), { data: 1, from: ann.hello.session })
    t.match(await ann.ask({ type: 'direct', to: there.hello.session, data: 2 }), { ok: true, data: { local: 1 } })
    t.same(asked.splice(0), [{ ...context, payload: 2, target: { topic: 'other', session: there.hello.session } }])
    t.match(await ann.ask({ type: 'direct', to: closed.hello.session, data: 3 }), gone, 'a refusal for another topic does not tell that the receiver exists')
    t.match(await ann.ask({ type: 'direct', to: 'nobody', data: 4 }), gone)
    await closed.ask({ type: 'ping' })
    t.notOk(closed.received.some(text => text.includes('"direct"')))
  }
})

t.test('an authorize that throws refuses its own topic only, and onError gets the error', async t => {
  let failure: Error = new Error('of the host')
  const { as, errors } = await serve(t, {
    authorize: async (context: any) => {
      if (context.action === 'direct' && context.target.topic !== 'chat') throw failure
      return true
    }
  })
  const [ann, here, there] = [await as('ann'), await as('bob'), await as('bob', 'other')]
  t.match(await ann.ask({ type: 'direct', to: there.hello.session, data: 1 }), { ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' } })
  t.match(errors.splice(0), [{ message: 'of the host' }])
  failure = new Error('again')
  t.match(await ann.ask({ type: 'direct', to: 'user:bob', data: 2 }), { ok: true, data: { local: 1 } }, 'the other topic gets the message')
  t.match(await here.next('direct'), { data: 2 })
  t.match(errors.splice(0), [{ message: 'again' }])
  failure = Object.assign(new Error('not you'), { statusCode: 403, code: 'HOST_SAYS_NO' })
  t.match(await ann.ask({ type: 'direct', to: there.hello.session, data: 3 }), { ok: false, error: { code: 'HOST_SAYS_NO', message: 'not you' } })
  t.same(errors, [])
})

t.test('a receiver that leaves while authorize is asked does not count', async t => {
  let answer: ((allowed: boolean) => void) | undefined
  const { rooms, as } = await serve(t, {
    authorize: (context: any) => context.action !== 'direct' || new Promise<boolean>(resolve => { answer = resolve })
  })
  const [ann, bob] = [await as('ann'), await as('bob')]
  const ack = ann.ask({ type: 'direct', to: bob.hello.session, data: 1 })
  await until(() => answer !== undefined)
  t.equal(await rooms.kick({ user: 'bob' }), 1)
  answer!(true)
  t.match(await ack, gone)
})

t.test('a raw member gets the bare payload', async t => {
  const { rooms, url, as } = await serve(t)
  const raw = await connect(t, `${url}/rooms/chat`, 'rooms.raw', { headers: { 'x-user': 'raw' } })
  await until(async () => await rooms.count('chat') === 1)
  const ann = await as('ann')
  for (const data of ['text', { a: 1 }]) t.match(await ann.ask({ type: 'direct', to: 'user:raw', data }), { ok: true })
  t.same([await raw.text(), await raw.text()], ['text', '{"a":1}'])
})

t.test('a private message is validated by the schema of messages that members send', async t => {
  const { as } = await serve(t, { topics: { chat: { message: Type.Object({ text: Type.String() }), publish: true } } })
  const ann = await as('ann')
  t.match(await ann.ask({ type: 'direct', to: 'user:ann', data: { text: 1 } }), { ok: false, error: { code: 'FST_ROOMS_INVALID_PAYLOAD', details: [{ path: '/text' }] } })
  t.match(await ann.ask({ type: 'direct', to: 'user:ann', data: { text: 'x' } }), { ok: true })
})

t.test('a receiver that disconnects while a private message waits for it causes no unhandled rejection', async t => {
  const app = await createRooms(t, { slow: { bytes: 1_000_000_000 } })
  const url = await listen(app)
  const [sender, receiver] = [await join(t, `${url}/rooms/news`), await join(t, `${url}/rooms/news`)]
  receiver.socket.pause()
  // The kernel buffers some megabytes; only bytes beyond that wait in the process.
  await until(async () => {
    app.rooms.send(receiver.hello.session, 'x'.repeat(1_000_000)).catch(() => {})
    await new Promise(resolve => setImmediate(resolve))
    return app.rooms.stats().queuedBytes > 65_536
  }, 10_000)
  t.match(await sender.ask({ type: 'direct', to: receiver.hello.session, data: 1 }), { ok: true, data: { local: 1 } })
  receiver.socket.terminate()
  await until(() => app.rooms.stats().connections === 1)
  // tap fails the test on an unhandled rejection.
  for (let n = 0; n < 5; n++) await new Promise(resolve => setImmediate(resolve))
  t.equal(await app.rooms.count('news'), 1)
})
