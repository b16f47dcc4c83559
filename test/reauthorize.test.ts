import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { connect, createRooms, join, listen, until, type AnyOptions } from './helpers/app.ts'

interface Question { action: string, topic: string, session: any }

/** An app whose members may stay as `may` says by user: a boolean, or an error to throw. */
async function create (t: Test, options: AnyOptions = {}) {
  const asked: Question[] = []
  const may = new Map<string | undefined, unknown>()
  const errors: Error[] = []
  const left: unknown[] = []
  const app: FastifyInstance = await createRooms(t, {
    identify: request => typeof request.headers['x-user'] === 'string' ? { user: request.headers['x-user'] } : null,
    authorize: context => {
      if (context.action !== 'stay') return true
      asked.push(context)
      const answer = may.get(context.session.user)
      if (answer instanceof Error) throw answer
      return answer as boolean
    },
    onError: error => { errors.push(error) },
    onLeave: (session, { code }) => { left.push([session.user, code]) },
    ...options
  })
  const url = await listen(app)
  const as = (user: string, topic = 'news') => join(t, `${url}/rooms/${topic}`, { headers: { 'x-user': user } })
  return { app, rooms: app.rooms, url, asked, may, errors, left, as }
}

const problem = (statusCode: number) => Object.assign(new Error(`problem ${statusCode}`), { statusCode })

t.test('members that may not stay are ended with 4301, others stay', async t => {
  const { rooms, as, asked, may, left } = await create(t)
  const [ann, ben] = [await as('ann'), await as('ben')]
  may.set('ann', false).set('ben', true)
  t.equal(await rooms.reauthorize({ topic: 'news' }), 1)
  t.match(await ann.next('bye'), { code: 4301, reason: 'token_revoked' })
  t.same(await ann.closed, { code: 4301, reason: 'token_revoked' })
  t.match(await ben.ask({ type: 'ping' }), { ok: true })
  t.same(left, [['ann', 4301]])
  t.same(asked.map(({ session }) => session.user).sort(), ['ann', 'ben'])
  t.same(Object.keys(asked[0]!).sort(), ['action', 'session', 'topic'])
  t.match(asked[0], { action: 'stay', topic: 'news', session: { topic: 'news', state: 'closed' } })
})

t.test('only true permits a member to stay', async t => {
  const { rooms, as, may } = await create(t)
  for (const answer of [undefined, null, 1, 'true', Promise.resolve(false)]) {
    const client = await as('ann')
    may.set('ann', answer)
    t.equal(await rooms.reauthorize({ user: 'ann' }), 1)
    t.equal((await client.closed).code, 4301)
  }
  const client = await as('ann')
  may.set('ann', Promise.resolve(true))
  t.equal(await rooms.reauthorize({ user: 'ann' }), 0)
  t.match(await client.ask({ type: 'ping' }), { ok: true })
})

t.test('authorize is asked about the sessions that match all given fields, and no other', async t => {
  const { rooms, as, asked, may } = await create(t)
  may.set('ann', true).set('ben', true)
  const [ann] = [await as('ann'), await as('ann', 'sports'), await as('ben')]
  const { session } = ann!.hello
  const about = async (selector: Parameters<typeof rooms.reauthorize>[0]): Promise<string[]> => {
    asked.splice(0)
    t.equal(await rooms.reauthorize(selector), 0)
    return asked.map(({ session, topic }) => `${session.user} ${topic}`).sort()
  }
  t.same(await about({ user: 'ann' }), ['ann news', 'ann sports'])
  t.same(await about({ topic: 'news' }), ['ann news', 'ben news'])
  t.same(await about({ user: 'ann', topic: 'sports' }), ['ann sports'])
  t.same(await about({ session }), ['ann news'])
  t.same(await about({ session, user: 'ben' }), [])
  t.same(await about({ topic: 'nobody-is-here' }), [])
  t.same(await about({ user: 'nobody' }), [])
})

t.test('an empty selector, and one with an unknown or undefined field, are refused', async t => {
  const { rooms, as, asked } = await create(t)
  await as('ann')
  for (const selector of [undefined, null, {}, { user: undefined }, { topic: 'news', user: undefined }, { session: 7 }, { role: 'admin' }, 'ann']) {
    await t.rejects(rooms.reauthorize(selector as never), { code: 'FST_ROOMS_INVALID_SELECTOR', message: 'reauthorize takes at least one of "session", "user" and "topic", each a string' })
  }
  await t.rejects(rooms.reauthorize({ topic: 'no topic' }), { code: 'FST_ROOMS_NO_SUCH_TOPIC' })
  t.same(asked, [])
})

t.test('without authorize all members stay', async t => {
  const { rooms, as } = await create(t, { authorize: undefined as never })
  const client = await as('ann')
  t.equal(await rooms.reauthorize({ user: 'ann' }), 0)
  t.match(await client.ask({ type: 'ping' }), { ok: true })
})

t.test('an error with a status below 500 ends the member as in onJoin', async t => {
  const { rooms, as, may, errors } = await create(t)
  for (const [status, code, reason] of [[401, 4001, 'unauthorized'], [403, 4003, 'forbidden'], [404, 4004, 'no_such_topic'], [429, 4101, 'rate_limited'], [410, 4003, 'forbidden']] as const) {
    const client = await as('ann')
    may.set('ann', problem(status))
    t.equal(await rooms.reauthorize({ user: 'ann' }), 1)
    t.same(await client.closed, { code, reason }, String(status))
  }
  t.same(errors, [])
})

t.test('if authorize fails, the member is closed with 1011, and onError gets the error', async t => {
  const { rooms, as, may, errors } = await create(t)
  const failures = [new Error('the database is down'), problem(503), Object.assign(problem(400), { code: 'FST_ROOMS_INVALID_PAYLOAD' })]
  for (const failure of failures) {
    const client = await as('ann')
    may.set('ann', failure)
    t.equal(await rooms.reauthorize({ user: 'ann' }), 1)
    t.match(await client.next('bye'), { code: 1011, retry: {} }, 'bye has a retry range')
    t.same(await client.closed, { code: 1011, reason: 'internal_error' })
  }
  t.same(errors, failures)
})

t.test('a raw session is closed without a frame', async t => {
  const { rooms, url, may } = await create(t)
  may.set('ann', false)
  const client = await connect(t, `${url}/rooms/news`, 'rooms.raw', { headers: { 'x-user': 'ann' } })
  await until(async () => await rooms.count('news') === 1)
  t.equal(await rooms.reauthorize({ user: 'ann' }), 1)
  t.same(await client.closed, { code: 4301, reason: 'token_revoked' })
  t.same(client.received, [])
})

t.test('joining sessions are asked about as well, and are refused before other members see them', async t => {
  let open!: () => void
  const door = new Promise<void>(resolve => { open = resolve })
  const { rooms, url, asked, may, left } = await create(t, { onJoin: () => door })
  may.set('ann', false).set('ben', true)
  const [ann, ben] = [await connect(t, `${url}/rooms/news`, [], { headers: { 'x-user': 'ann' } }), await connect(t, `${url}/rooms/news`, [], { headers: { 'x-user': 'ben' } })]
  await until(() => rooms.stats().connections === 2)
  t.equal(await rooms.reauthorize({ topic: 'news' }), 1)
  t.equal(asked.length, 2)
  t.same(await ann.closed, { code: 4301, reason: 'token_revoked' })
  t.notMatch(ann.received.join(), 'hello')
  t.match(rooms.stats(), { refused: 1, refusals: { forbidden: 1 } })
  open()
  t.match(await ben.next(), { type: 'hello' })
  t.same(left, [['ann', 4301]], 'onJoin has accepted the session by now')
})

t.test('an upgrade that was admitted before the call and joins after it is asked about as well', async t => {
  let begun = 0
  let open!: () => void
  const door = new Promise<void>(resolve => { open = resolve })
  const { rooms, url, asked, may, as } = await create(t, {
    identify: async request => {
      const user = String(request.headers['x-user'])
      begun++
      if (user !== 'cleo') await door // rights are read before the call
      return { user }
    }
  })
  may.set('ann', false).set('ben', true)
  const [ann, ben] = ['ann', 'ben'].map(user => connect(t, `${url}/rooms/news`, [], { headers: { 'x-user': user } }))
  await until(() => begun === 2)
  t.equal(await rooms.reauthorize({ user: 'ann' }), 0)
  t.same(asked, [])
  open()
  t.same(await (await ann!).closed, { code: 4301, reason: 'token_revoked' })
  t.match(await (await ben!).next('hello'), { topic: 'news' })
  t.same(asked.map(({ session }) => session.user).sort(), ['ann', 'ben'])
  const cleo = await as('cleo')
  t.match(await cleo.ask({ type: 'ping' }), { ok: true })
  t.equal(asked.length, 2, 'a later connection is not asked about')
})

t.test('authorize is asked about a hundred members at a time, so that the server keeps working', async t => {
  let waiting = 0
  let most = 0
  const release: (() => void)[] = []
  const { app, rooms } = await create(t, {
    identify: undefined as never,
    authorize: context => {
      if (context.action !== 'stay') return true
      most = Math.max(most, ++waiting)
      return new Promise(resolve => {
        release.push(() => {
          waiting--
          resolve(false)
        })
      })
    }
  })
  const clients = await Promise.all(Array.from({ length: 250 }, () => app.rooms.inject('/rooms/news')))
  const done = rooms.reauthorize({ topic: 'news' })
  await until(() => waiting === 100)
  t.match(await rooms.broadcast('news', 1), { local: 250 })
  let answered = 0
  while (answered < 250) {
    await until(() => release.length > 0)
    release.shift()!()
    answered++
  }
  t.equal(await done, 250)
  t.equal(most, 100)
  for (const client of clients) t.equal((await client.closed).code, 4301)
})

t.test('a session that ends while authorize is asked about it is not counted, and keeps its close code', async t => {
  const { rooms, as, may } = await create(t)
  let answer!: (may: boolean) => void
  may.set('ann', new Promise<boolean>(resolve => { answer = resolve }))
  const client = await as('ann')
  const done = rooms.reauthorize({ user: 'ann' })
  t.equal(await rooms.kick({ user: 'ann' }), 1)
  answer(false)
  t.equal(await done, 0)
  t.same(await client.closed, { code: 4005, reason: 'kicked' })
})

t.test('authorize is not asked about a session that has ended before its turn', async t => {
  const { rooms, as, asked, may } = await create(t, {
    onLeave: async session => { if (session.user === 'ann') await session.rooms.kick({ user: 'ben' }) }
  })
  may.set('ann', false)
  for (let i = 0; i < 101; i++) await as('ann')
  for (let i = 0; i < 5; i++) await as('ben')
  t.equal(await rooms.reauthorize({ topic: 'news' }), 101)
  t.same(new Set(asked.map(({ session }) => session.user)), new Set(['ann']))
  t.equal(rooms.stats().members, 0)
})

t.test('authorize may end the session itself, or call reauthorize', async t => {
  let depth = 0
  const { rooms, as } = await create(t, {
    authorize: async context => {
      if (context.action !== 'stay') return true
      if (context.session.user === 'ann') context.session.close(4900)
      else if (depth++ === 0) await context.session.rooms.reauthorize({ user: 'ben' })
      return false
    }
  })
  const [ann, ben] = [await as('ann'), await as('ben')]
  t.equal(await rooms.reauthorize({ user: 'ann' }), 0)
  t.equal((await ann.closed).code, 4900)
  t.equal(await rooms.reauthorize({ user: 'ben' }), 0, 'the inner call has ended the session')
  t.equal((await ben.closed).code, 4301)
})
