import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { Session } from '../types/index.ts'
import { connect, createRooms, join, listen, until, type AnyOptions, type Client } from './helpers/app.ts'

function deferred<T = void> () {
  let resolve!: (value: T) => void
  let reject!: (error: unknown) => void
  const promise = new Promise<T>((_resolve, _reject) => { resolve = _resolve; reject = _reject })
  return { promise, resolve, reject }
}

const plain = { news: { publish: true } } as const

/** A frame in short form. */
function brief (text: string): unknown {
  const frame = JSON.parse(text)
  switch (frame.type) {
    case 'message': return frame.data
    case 'direct': return `direct ${frame.data}`
    case 'ack': return `ack ${frame.ref}`
    case 'presence': return 'presence'
    default: return frame.type
  }
}

/** All frames that a client received, without hello, in short form. */
const got = ({ received }: Client): unknown[] => received.slice(1).map(brief)
/** Waits until a client has received so many frames, hello included. */
const gets = (client: Client, count: number): Promise<void> => until(() => client.received.length >= count)

/**
 * An app whose onJoined sends one text, waits for `gate` and sends another.
 * @param free - for so many members, it waits for nothing
 */
async function gated (t: Test, options: AnyOptions = {}, free = 0) {
  const gate = deferred()
  const seen: { session: Session, error?: Error }[] = []
  const errors: Error[] = []
  const left: unknown[] = []
  const app = await createRooms(t, {
    topics: { news: { publish: true, presence: true } },
    onJoined: async session => {
      const entry: { session: Session, error?: Error } = { session: session as Session }
      seen.push(entry)
      try {
        await session.send('state 1')
        if (seen.length > free) await gate.promise
        await session.send('state 2')
      } catch (error) {
        entry.error = error as Error
        throw error
      }
    },
    onError: error => { errors.push(error) },
    onLeave: (_session, { code }) => { left.push(code) },
    ...options
  })
  const url = `${await listen(app)}/rooms/news`
  return { app, gate, seen, errors, left, url }
}

for (const hook of ['onJoined', 'onJoin'] as const) {
  t.test(`a member that ${hook} sends the rows of a database ${hook === 'onJoined' ? 'misses no message' : 'misses messages'} that is published meanwhile`, async t => {
    const rows: number[] = []
    const query = async (): Promise<number[]> => {
      await sleep(10)
      const result = [...rows]
      await sleep(20)
      return result
    }
    const app = await createRooms(t, { topics: plain, [hook]: async (session: Session) => { await session.send(await query()) } })
    const url = `${await listen(app)}/rooms/news`
    const ids = (client: Client): number[] => client.received.map(text => JSON.parse(text)).flatMap(({ data }) => data ?? [])
    const clients: Client[] = []
    const connecting: Promise<unknown>[] = []
    for (let id = 1; id <= 48; id++) {
      rows.push(id)
      await app.rooms.broadcast('news', id)
      if (id % 8 === 1) connecting.push(connect(t, url).then(client => { clients.push(client) }))
      await sleep(5)
    }
    await Promise.all(connecting)
    await until(() => clients.every(client => client.received.some(text => text.includes('"direct"'))))
    await app.rooms.broadcast('news', 49)
    await until(() => clients.every(client => ids(client).includes(49)))
    const all = Array.from({ length: 49 }, (_, index) => index + 1)
    const complete = clients.filter(client => new Set(ids(client)).size === all.length)
    t.equal(clients.length, 6)
    if (hook === 'onJoin') {
      t.ok(complete.length < clients.length, 'this is why onJoined exists')
      return
    }
    t.equal(complete.length, clients.length)
    for (const client of clients) {
      const [state, ...live] = client.received.slice(1).map(text => JSON.parse(text))
      t.equal(state.type, 'direct', 'the state is the first frame after hello')
      const later = live.map(({ data }) => data)
      t.same(later, all.slice(all.indexOf(later[0])), 'then each message in order, once')
      t.ok(later[0] <= state.data.length + 1)
    }
  })
}

t.test('all frames of the room wait behind what onJoined sends, in their order, each once', async t => {
  const { app, gate, seen, url } = await gated(t, {}, 1)
  const other = await join(t, url)
  const client = await join(t, `${url}?presence=1`)
  await gets(client, 3)
  const { session } = seen[1]!
  t.match(session, { state: 'open', topic: 'news' })
  t.equal(await app.rooms.count('news'), 2)
  t.same((await app.rooms.members('news')).map(({ session }) => session).includes(client.hello.session), true)

  t.match(await app.rooms.broadcast('news', 1), { local: 2 })
  await app.rooms.send(client.hello.session, 'private')
  t.match(await app.rooms.broadcast('news', 2, { except: client.hello.session }), { local: 1 })
  await other.ask({ type: 'message', data: 3 })
  await other.ask({ type: 'direct', to: client.hello.session, data: 'from a member' })
  client.send({ type: 'message', data: 4, ref: 'own' })
  await until(() => app.rooms.stats().broadcasts === 4)
  const third = await join(t, url)
  await until(() => app.rooms.stats().joined === 3)
  await sleep(150) // presence has been told
  t.same(got(client), ['presence', 'direct state 1'], 'the snapshot has its place before the hook')

  gate.resolve()
  await app.rooms.broadcast('news', 5)
  await until(() => got(client).includes(5) && got(other).includes(5))
  const order = got(client)
  t.same(order.slice(0, 3), ['presence', 'direct state 1', 'direct state 2'])
  t.same(order.filter(frame => frame !== 'presence').slice(2), [1, 'direct private', 3, 'direct from a member', 4, 'ack own', 5])
  t.ok(order.slice(3).includes('presence'))
  t.same(got(other).filter(frame => typeof frame === 'number'), [1, 2, 3, 4, 5], 'each member has its own hook')
  await until(() => got(third).includes(5))
  t.match(app.rooms.stats(), { slow: 0, lagging: 0, errors: 0 })
  t.equal(app.rooms.stats().deliveries, 2 + 1 + 2 + 2 + 3)
})

t.test('onJoined may be synchronous, or send nothing, and its result is ignored', async t => {
  for (const onJoined of [(session: any) => { session.send('state') }, (session: any) => { session.send('state'); return false }, async (session: any) => { session.send('state') }]) {
    const app = await createRooms(t, {
      topics: plain,
      onJoined: session => {
        app.rooms.broadcast('news', 'live')
        return onJoined(session)
      }
    })
    const client = await join(t, `${await listen(app)}/rooms/news`)
    await gets(client, 3)
    t.same(got(client), ['direct state', 'live'])
    await app.rooms.broadcast('news', 'more')
    await gets(client, 4)
    t.same(got(client).at(-1), 'more')
  }
})

t.test('what a subscriber of the channel publishes about the join waits, too', async t => {
  const { subscribe, unsubscribe } = await import('node:diagnostics_channel')
  const { app, gate, url } = await gated(t)
  const publish = (): void => { app.rooms.broadcast('news', 'joined') }
  subscribe('fastify-rooms:join', publish)
  t.teardown(() => { unsubscribe('fastify-rooms:join', publish) })
  const client = await join(t, url)
  await gets(client, 2)
  gate.resolve()
  await until(() => got(client).includes('joined'))
  t.same(got(client).filter(frame => frame !== 'presence'), ['direct state 1', 'direct state 2', 'joined'])
})

t.test('a subscriber of the channel may end the member before onJoined is called', async t => {
  const { subscribe, unsubscribe } = await import('node:diagnostics_channel')
  const { app, seen, left, url } = await gated(t)
  const end = ({ session }: any): void => { app.rooms.kick({ session }) }
  subscribe('fastify-rooms:join', end)
  t.teardown(() => { unsubscribe('fastify-rooms:join', end) })
  const client = await join(t, url)
  t.match(await client.closed, { code: 4005 })
  t.same(seen, [])
  t.same(left, [4005])
})

t.test('frames of the member are handled while onJoined runs, and its hooks may ask it', async t => {
  const handled: unknown[] = []
  const answers: unknown[] = []
  const app = await createRooms(t, {
    topics: plain,
    onJoined: async session => {
      answers.push(await app.rooms.ask(session.id, 'which page?'))
      await until(() => handled.length === 1)
      await session.send('state')
    },
    onMessage: { news: (_session, payload) => { handled.push(payload); return 'stored' } }
  })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  const question = await client.next('direct')
  client.send({ type: 'ack', ref: question.ref, data: 7 })
  client.send({ type: 'message', data: 'during', ref: 1 })
  await gets(client, 4)
  t.same(got(client), ['direct which page?', 'direct state', 'ack 1'])
  t.same([answers, handled], [[7], ['during']])
})

t.test('an error of onJoined ends the member, which has been in the room', async t => {
  const withStatus = (statusCode: number): Error => Object.assign(new Error(`status ${statusCode}`), { statusCode })
  const cases: [string, () => unknown, number, string, boolean][] = [
    ['throw', () => { throw new Error('the database is down') }, 1011, 'internal_error', true],
    ['reject', async () => { throw new Error('the database is down') }, 1011, 'internal_error', true],
    ['503', async () => { throw withStatus(503) }, 1011, 'internal_error', true],
    ['401', async () => { throw withStatus(401) }, 4001, 'unauthorized', false],
    ['403', () => { throw withStatus(403) }, 4003, 'forbidden', false],
    ['an invalid payload', session => session.send(1n), 1011, 'internal_error', true]
  ] as [string, (session?: any) => unknown, number, string, boolean][]
  for (const [name, hook, code, reason, isFailure] of cases) {
    t.test(name, async t => {
      const { app, errors, left, url } = await gated(t, {
        onJoined: session => {
          app.rooms.broadcast('news', 'never read')
          return (hook as (session: unknown) => unknown)(session)
        }
      })
      const client = await join(t, url)
      t.same(await client.closed, { code, reason })
      t.same(got(client), ['bye'])
      t.equal(errors.length, isFailure ? 1 : 0)
      await until(() => left.length === 1)
      t.same(left, [code])
      t.match(app.rooms.stats(), { members: 0, topics: 0, deliveries: 0, refused: 0 })
    })
  }
})

t.test('a member may end while onJoined runs: by a kick, by its peer, by a drain', async t => {
  for (const how of ['kick', 'peer', 'close', 'drain'] as const) {
    t.test(how, async t => {
      const { app, gate, seen, errors, left, url } = await gated(t)
      const client = await join(t, url)
      await gets(client, 2)
      await app.rooms.broadcast('news', 'waits')
      await app.rooms.send(client.hello.session, 'private')
      t.equal(app.rooms.stats().deliveries, 1)
      if (how === 'kick') await app.rooms.kick({ topic: 'news' })
      else if (how === 'peer') client.socket.close(1000)
      else if (how === 'close') seen[0]!.session.close(4400)
      else await app.rooms.drain()
      const code = { kick: 4005, peer: 1000, close: 4400, drain: 1001 }[how]
      t.match(await client.closed, { code })
      await until(() => left.length === 1)
      t.same(left, [code])
      t.equal(seen[0]!.session.signal.aborted, true)
      t.same(got(client), ['direct state 1', 'direct private', ...(how === 'peer' ? [] : ['bye'])], 'nothing private is lost, and messages of the room are not sent without the state')
      if (how !== 'peer') t.notOk(JSON.parse(client.received.at(-1)!).id, 'its last position is that of its hello')
      t.equal(app.rooms.stats().deliveries, 0)
      gate.resolve()
      await until(() => seen[0]!.error !== undefined)
      await sleep(5)
      t.same(errors, [], 'the end of the session is not an error')
    })
  }
})

t.test('an onJoined that takes longer than limits.handshake ends the member with 4100', async t => {
  const { app, seen, errors, left, url } = await gated(t, { limits: { handshake: 200 } })
  const client = await join(t, url)
  t.same(await client.closed, { code: 4100, reason: 'overloaded' })
  t.same(got(client).filter(frame => frame !== 'presence'), ['direct state 1', 'bye'])
  t.same([left, errors], [[4100], []])
  t.equal(seen[0]!.session.state, 'closed')
  t.match(app.rooms.stats(), { members: 0, topics: 0 })
})

t.test('opening the messages of a member ends the wait, and the member stays', async t => {
  for (const way of ['loop', 'stream'] as const) {
    const sums: number[] = []
    const app = await createRooms(t, {
      topics: plain,
      limits: { handshake: 100 },
      onJoined: async session => {
        await session.send('state')
        for await (const payload of way === 'loop' ? session : session.readable) {
          sums.push(payload as number)
          await session.send(`sum ${sums.reduce((sum, number) => sum + number)}`)
        }
      }
    })
    const client = await join(t, `${await listen(app)}/rooms/news`)
    await client.next('direct')
    await app.rooms.broadcast('news', 'live')
    await client.next('message')
    await sleep(250) // longer than onJoined may take
    t.equal((await client.ask({ type: 'message', data: 1 }, 'a')).ok, true)
    await client.ask({ type: 'message', data: 2 }, 'b')
    await gets(client, 7)
    t.same(got(client).filter(frame => String(frame).startsWith('direct')), ['direct state', 'direct sum 1', 'direct sum 3'])
  }
})

t.test('an error after the messages were opened ends the member with 1011', async t => {
  const { errors, url } = await gated(t, {
    onJoined: async session => {
      for await (const payload of session) if (payload === 'x') throw new Error(payload)
    }
  })
  const client = await join(t, url)
  client.send({ type: 'message', data: 'x' })
  t.match(await client.closed, { code: 1011 })
  t.match(errors, [{ message: 'x' }])
})

t.test('more than slow.bytes behind onJoined makes the member slow, by the policy of its topic', async t => {
  const big = 'x'.repeat(300)
  for (const policy of ['close', 'drop', 'latest'] as const) {
    t.test(policy, async t => {
      const { app, gate, errors, url } = await gated(t, { topics: plain, slow: { policy, bytes: 1_000 } })
      const client = await join(t, url)
      await gets(client, 2)
      for (let n = 0; n < 4; n++) await app.rooms.broadcast('news', `${n}${big}`, { key: `k${n % 2}` })
      await app.rooms.send(client.hello.session, 'private')
      if (policy === 'close') {
        t.match(await client.closed, { code: 4201 })
        t.same(got(client), ['direct state 1'])
        t.match(app.rooms.stats(), { slow: 1, lagging: 0, members: 0, deliveries: 0 })
        return
      }
      await until(() => app.rooms.stats().lagging === 1)
      await app.rooms.broadcast('news', '4', { key: 'k4' })
      await sleep(20)
      t.same(got(client), ['direct state 1'], 'the member does not catch up before the hook has settled')
      gate.resolve()
      await until(() => app.rooms.stats().lagging === 0)
      await app.rooms.broadcast('news', 'last')
      await client.next('message')
      await until(() => got(client).includes('last'))
      t.same(got(client), ['direct state 1', 'direct state 2', 'direct private', ...(policy === 'drop' ? ['gap'] : [`2${big}`, `3${big}`, '4']), 'last'])
      t.match(app.rooms.stats(), policy === 'drop' ? { dropped: 5, conflated: 0, deliveries: 1 } : { dropped: 0, conflated: 2, deliveries: 4 })
      t.same(errors, [])
    })
  }
})

t.test('more than slow.bytes of private messages behind onJoined closes the member, because none of them is dropped', async t => {
  const { app, gate, url } = await gated(t, { topics: plain, slow: { policy: 'drop', bytes: 2_000 } })
  const client = await join(t, url)
  await gets(client, 2)
  const results: unknown[] = []
  for (let n = 0; n < 5; n++) results.push(await app.rooms.send(client.hello.session, n).then(() => 'sent', error => error.code))
  t.match(await client.closed, { code: 4201 })
  t.same(results, ['sent', 'sent', 'sent', 'FST_ROOMS_SESSION_CLOSED', 'FST_ROOMS_NO_SUCH_SESSION'])
  t.same(got(client), ['direct state 1'])
  gate.resolve()
})

t.test('a raw member gets the state, then the messages', async t => {
  const { app, gate, url } = await gated(t)
  const client = await connect(t, url, 'rooms.raw')
  await gets(client, 1)
  await app.rooms.broadcast('news', 1)
  await app.rooms.broadcast('news', { n: 2 })
  gate.resolve()
  await gets(client, 4)
  t.same(client.received, ['state 1', 'state 2', '1', '{"n":2}'])
})

t.test('an injected client gets the state, then the messages', async t => {
  const { app, gate } = await gated(t, { topics: plain })
  const client = await app.rooms.inject('/rooms/news')
  t.match(await client.next(), { type: 'hello' })
  t.match(await client.next(), { type: 'direct', data: 'state 1' })
  await app.rooms.broadcast('news', 1)
  gate.resolve()
  t.match(await client.next(), { type: 'direct', data: 'state 2' })
  t.match(await client.next(), { type: 'message', data: 1 })
})

t.test('a member whose messages onJoin reads gets the state of onJoined, too', async t => {
  const { app, gate, url } = await gated(t, {
    topics: plain,
    onJoin: async session => {
      for await (const payload of session) await session.send(`read ${payload}`)
    }
  })
  const client = await join(t, url)
  await gets(client, 2)
  await app.rooms.broadcast('news', 1)
  client.send({ type: 'message', data: 'x' })
  await gets(client, 3)
  gate.resolve()
  await gets(client, 5)
  t.same(got(client), ['direct state 1', 'direct read x', 'direct state 2', 1])
})

t.test('messages that are compressed wait, too', async t => {
  const { app, gate, url } = await gated(t, { topics: { news: {} }, websocket: { options: { perMessageDeflate: { threshold: 10 } } } })
  const client = await join(t, url, { perMessageDeflate: true })
  await gets(client, 2)
  const text = 'long '.repeat(100)
  for (let n = 0; n < 3; n++) await app.rooms.broadcast('news', text + n)
  gate.resolve()
  await gets(client, 6)
  t.same(got(client), ['direct state 1', 'direct state 2', `${text}0`, `${text}1`, `${text}2`])
})

t.test('kept messages come first, then the state, then live messages', async t => {
  for (const pad of [0, 20_000]) {
    const { app, gate, url } = await gated(t, { topics: { news: { publish: true, history: { size: 100, bytes: 10_000_000, replay: 10_000_000 } } } })
    for (let n = 1; n <= 20; n++) await app.rooms.broadcast('news', { n, pad: 'x'.repeat(pad) }) // 400,000 bytes leave in several parts
    const client = await connect(t, `${url}?since=0`)
    await until(() => client.received.some(text => text.includes('state 1')))
    await app.rooms.broadcast('news', { n: 21 })
    gate.resolve()
    await gets(client, 24)
    const frames = got(client).map((frame: any) => frame.n ?? frame)
    t.same(frames, [...Array.from({ length: 20 }, (_, index) => index + 1), 'direct state 1', 'direct state 2', 21])
    t.equal(JSON.parse(client.received[0]!).replayed, 20)
  }
})
