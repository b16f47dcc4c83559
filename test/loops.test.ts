import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { Type } from '@sinclair/typebox'
import t, { type Test } from 'tap'
import { memoryBroker } from '../lib/index.ts'
import { toldOfSession } from '../lib/hub/failures.ts'
import { Hub } from '../lib/hub/hub.ts'
import type { AnySession, Hooks } from '../lib/hub/ports.ts'
import { payloadCompiler, schemaCompiler } from '../lib/topics/payload.ts'
import { HubRooms } from '../lib/api/rooms.ts'
import { TopicRegistry } from '../lib/topics/registry.ts'
import { webSocketPeer } from '../lib/transport/ws/listeners.ts'
import { createRooms, join, listen, until, type AnyOptions, type LogLine } from './helpers/app.ts'
import { bareHooks, bareSettings, LiveSocket, silent } from './helpers/bare-hub.ts'

const turn = (): Promise<void> => new Promise(resolve => { setImmediate(resolve) })

/** Fails the test if an error reaches the process. */
function watchProcess (t: Test): void {
  const hear = (error: unknown): void => { t.fail(`reaches the process: ${error}`) }
  for (const event of ['unhandledRejection', 'uncaughtException'] as const) {
    process.on(event, hear)
    t.teardown(() => { process.removeListener(event, hear) })
  }
}

// Failures that onError itself causes. Hooks of these tests stop after `enough` calls, so that a loop fails the test instead of hanging it.
const enough = 20_000

async function createFailing (t: Test, onError: (error: Error, session: any) => unknown, options: AnyOptions = {}) {
  watchProcess(t)
  const logs: LogLine[] = []
  let calls = 0
  const app = await createRooms(t, {
    topics: { news: { message: Type.Object({ text: Type.String() }), publish: true } },
    onMessage: { news: () => { throw new Error('from onMessage') } },
    onError: (error, session) => { if (++calls < enough) return onError(error, session) },
    ...options
  }, logs)
  const client = await join(t, `${await listen(app)}/rooms/news`)
  return {
    app,
    client,
    calls: () => calls,
    /** Messages of the errors in the log. */
    logged: () => logs.filter(({ level }) => level >= 50).map(({ err }) => (err as Error).message),
    /** Sends a message whose onMessage fails, then lets the event loop turn. */
    async fails (): Promise<void> {
      client.send({ type: 'message', data: { text: 'a' } })
      await client.next('error')
      for (let n = 0; n < 20; n++) await turn()
    }
  }
}

const refusedByTheSchema = /^invalid payload: /

for (const [name, onError] of Object.entries<(error: Error, session: any) => unknown>({
  'in its synchronous part': (error, session) => { session.send({ error: error.message }) },
  'with its promise returned': (error, session) => session.send({ error: error.message }),
  'before an await': async (error, session) => { session.send({ error: error.message }); await turn() },
  'after a microtask': async (error, session) => { await undefined; session.send({ error: error.message }) },
  'after a turn': async (error, session) => { await turn(); session.send({ error: error.message }) },
  'awaited after a turn': async (error, session) => { await turn(); await session.send({ error: error.message }) },
  'and settles before the send fails': async (error, session) => { await turn(); session.send({ get error () { return error.message } }) },
  'through session.writable': (error, session) => { session.writable.write({ error: error.message }) },
  'through session.writable, later': async (error, session) => { await turn(); session.writable.write({ error: error.message }) }
})) {
  t.test(`issue 8: onError that sends an invalid payload, ${name}, is called once; the refusal is logged`, async t => {
    const { app, calls, logged, fails } = await createFailing(t, onError)
    await fails()
    t.equal(calls(), 1)
    t.match(logged(), [refusedByTheSchema])
    t.equal(logged().length, 1)
    t.equal(app.rooms.stats().errors, 2, 'each error counts once')
    await app.rooms.broadcast('news', { text: 'still here' })
  })
}

t.test('issue 8: onError that closes with an invalid code is called once', async t => {
  const { app, calls, logged, fails } = await createFailing(t, (_error, session) => { session.close(1) })
  await fails()
  t.equal(calls(), 1)
  t.match(logged(), [/^a close takes a code/])
  t.equal(app.rooms.stats().errors, 2)
})

t.test('issue 8: onError that sends an invalid payload to another member, in both directions, terminates', async t => {
  const sessions: any[] = []
  const { app, client, calls, logged, fails } = await createFailing(t, async (error, session) => {
    await undefined
    const [one, two] = sessions;
    (session === one ? two : one).send({ error: error.message })
  }, { onJoin: session => { sessions.push(session) } })
  await join(t, `${client.socket.url.slice('ws://'.length)}`)
  await fails()
  t.ok(calls() <= 2 * toldOfSession, `${calls()} calls`)
  t.equal(app.rooms.stats().errors, calls() + logged().length)
})

t.test('issue 8: failures that onError causes after it has settled are bounded for each session, and the rest is logged', async t => {
  for (const later of [
    (send: () => void) => { setImmediate(send) },
    (send: () => void) => { Promise.resolve().then(() => {}).then(() => {}).then(() => {}).then(() => {}).then(send) }
  ]) {
    const { app, calls, logged, fails } = await createFailing(t, (error, session) => { later(() => { session.send({ error: error.message }) }) })
    await fails()
    await until(() => logged().length > 0)
    t.equal(calls(), toldOfSession)
    t.match(logged(), [refusedByTheSchema], 'logged failures do not go to onError')
    t.equal(app.rooms.stats().errors, toldOfSession + 1)
    await new Promise(resolve => setTimeout(resolve, 1_100))
    await fails()
    await until(() => logged().length > 1)
    t.equal(calls(), 2 * toldOfSession, 'a second later onError is called again')
  }
})

t.test('issue 8: calls of onError have a bound for all sessions together', async t => {
  let calls = 0
  const { hub, arrive, settled } = await createHub(t, { onError: () => { calls++ } })
  const members = Array.from({ length: 200 }, () => arrive())
  await settled()
  for (const { session } of members) for (let n = 0; n < 60; n++) hub.fail(new Error('one of many'), session)
  for (let n = 0; n < 10; n++) hub.fail(new Error('of no session'))
  t.equal(calls, 10_000)
  t.equal(hub.counters.errors, 12_010)
})

t.test('issue 8: a subscriber of the error channel that sends an invalid payload is called once', async t => {
  const sessions: any[] = []
  let told = 0
  const hear = (): void => { if (++told < enough) sessions[0].send({ error: 'no' }) }
  subscribe('fastify-rooms:error', hear)
  t.teardown(() => { unsubscribe('fastify-rooms:error', hear) })
  const { app, logged, fails } = await createFailing(t, () => {}, { onJoin: session => { sessions.push(session) } })
  await fails()
  t.equal(told, 1)
  t.match(logged(), [refusedByTheSchema])
  t.equal(app.rooms.stats().errors, 2)
})

t.test('onError gets errors of other hooks that fail while it runs', async t => {
  const seen: string[] = []
  const { app, calls, logged, fails } = await createFailing(t, (error, session) => {
    seen.push(error.message)
    session.close(4000)
  }, { onLeave: () => { throw new Error('from onLeave') } })
  await t.rejects(fails(), /closed/)
  t.same(seen, ['from onMessage', 'from onLeave'])
  t.equal(calls(), 2)
  t.same(logged(), [])
  t.equal(app.rooms.stats().errors, 2)
})

t.test('errors of sends to its own session are logged while onError is pending, and onError gets all other errors', async t => {
  const sessions: any[] = []
  const { client, calls, logged, fails } = await createFailing(t, () => new Promise(() => {}), { onJoin: session => { sessions.push(session) } })
  const other = await join(t, `${client.socket.url.slice('ws://'.length)}`)
  await fails()
  await fails()
  t.equal(calls(), 2, 'errors of hooks')
  sessions[0].send({ no: 1 })
  await turn()
  t.match(logged(), [refusedByTheSchema])
  sessions[1].send({ no: 1 })
  await turn()
  t.equal(calls(), 3, 'errors of sends to other members')
  await other.close()
})

// Hooks and listeners that end other sessions.

const many = 3_000

/** A hub without Fastify, for thousands of members. */
async function createHub (t: Test, hooks: Partial<Hooks> = {}) {
  watchProcess(t)
  const registry = new TopicRegistry(undefined, payloadCompiler(schemaCompiler({}), {}), { limits: { payload: 1_000, messages: 1_000, per: 1_000, topicLength: 255 }, slow: { policy: 'close', bytes: 1_000_000 }, history: false })
  const left = new Map<AnySession, number>()
  const { onLeave, ...others } = hooks
  const hub = new Hub(memoryBroker(), bareHooks({
    ...others,
    onLeave: (session, reason) => {
      left.set(session, (left.get(session) ?? 0) + 1)
      return onLeave?.(session, reason)
    }
  }), bareSettings({ limits: { connections: many }, address: { connections: many, rate: { capacity: 10 * many, per: 1_000 }, rateIsGiven: true } }), silent)
  const rooms = hub.rooms = new HubRooms(hub, registry, () => Promise.reject(new Error('no inject here')), () => { throw new Error('no document here') })
  await hub.start()
  t.teardown(() => hub.close())
  const arrive = (topic = 'news') => {
    const socket = new LiveSocket()
    socket.close = code => {
      socket.readyState = 2
      setImmediate(() => { socket.gone(code) })
    }
    hub.connect({ ...webSocketPeer(socket as never, {}, 'rooms.v1'), address: '-', addressKey: '-', isForwarded: false, definition: registry.get(topic), topic, user: undefined, info: undefined, since: undefined, presence: false, onJoin: undefined })
    return { socket, session: [...hub.directory.all()].at(-1)! }
  }
  return {
    hub,
    rooms,
    arrive,
    left,
    settled: () => until(() => [...hub.directory.all()].every(({ state }) => state === 'open')),
    /** Asserts that each member has left once, and that no state remains. */
    async empties (t: Test, members: { session: AnySession }[]): Promise<void> {
      await until(() => hub.connections.size === 0)
      t.match(rooms.stats(), { connections: 0, topics: 0, members: 0 })
      t.equal(hub.directory.size, 0)
      t.equal(members.filter(({ session }) => left.get(session) === 1).length, members.length, 'each onLeave ran once')
      t.equal(left.size, members.length)
    }
  }
}

t.test(`issue 8: onLeave that kicks its own topic of ${many} members terminates: each onLeave runs once, and no connection remains`, async t => {
  for (const fails of [false, true]) {
    let depth = 0
    let deepest = 0
    let errors = 0
    const { arrive, rooms, left, settled, empties } = await createHub(t, {
      onLeave: ({ topic }) => {
        deepest = Math.max(deepest, ++depth)
        rooms.kick({ topic })
        depth--
        if (fails) throw new Error('from onLeave')
      },
      onError: () => { errors++ }
    })
    const members = Array.from({ length: many }, () => arrive())
    await settled()
    members[0]!.session.close()
    t.equal(left.size, many, 'all have run when the outermost call returns')
    t.equal(deepest, 1, 'calls of onLeave do not nest')
    t.equal(errors, fails ? many : 0)
    await empties(t, members)
  }
})

t.test(`issue 8: an abort listener that ends the next of ${many} sessions terminates`, async t => {
  for (const reads of [false, true]) {
    let early = 0
    const { arrive, left, settled, empties } = await createHub(t)
    const members = Array.from({ length: many }, () => arrive())
    await settled()
    members.forEach(({ session }, index) => {
      session.signal.addEventListener('abort', () => {
        const next = members[index + 1]?.session
        next?.close()
        if (reads && next?.signal.aborted === true) early++
      })
    })
    members[0]!.session.close()
    t.equal(left.size, many)
    t.ok(members.every(({ session }) => session.signal.aborted))
    t.equal(early, 0, 'abort listeners of the next session run after this one')
    await empties(t, members)
  }
})

t.test(`issue 8: a subscriber of the leave channel that ends the next of ${many} sessions terminates`, async t => {
  const { hub, arrive, left, settled, empties } = await createHub(t)
  const members = Array.from({ length: many }, () => arrive())
  await settled()
  const hear = (): void => { [...hub.directory.all()][0]?.close() }
  subscribe('fastify-rooms:leave', hear)
  members[0]!.session.close()
  unsubscribe('fastify-rooms:leave', hear)
  t.equal(left.size, many)
  await empties(t, members)
})

t.test('issue 8: a subscriber of the refused channel that ends other joins terminates', async t => {
  const { hub, arrive, left } = await createHub(t)
  const hear = (): void => { [...hub.directory.all()][0]?.close() }
  subscribe('fastify-rooms:refused', hear)
  t.teardown(() => { unsubscribe('fastify-rooms:refused', hear) })
  const members = Array.from({ length: many }, (_, n) => arrive(`room${n % 10}`))
  t.ok(members.filter(({ session }) => session.state === 'joining').length > many - 100, 'the first join of a room waits for the broker')
  members.at(-1)!.session.close()
  await until(() => hub.connections.size === 0)
  t.equal(left.size, 0)
  t.equal(hub.counters.refused, many)
  t.equal(hub.counters.refusals.other, many)
  t.equal(hub.stats().topics, 0)
})

t.test(`issue 8: onError that ends the other sessions, of ${many} members whose onLeave fails, terminates`, async t => {
  const { arrive, rooms, left, settled, empties } = await createHub(t, {
    onLeave: () => { throw new Error('from onLeave') },
    onError: (_error, session) => { rooms.kick({ topic: session!.topic }) }
  })
  const members = Array.from({ length: many }, () => arrive())
  await settled()
  members[0]!.session.close()
  t.equal(left.size, many)
  t.equal(rooms.stats().errors, many)
  await empties(t, members)
})

t.test(`issue 8: readers that end each other, of ${many} members, terminate`, async t => {
  const { arrive, settled, empties } = await createHub(t)
  const members = Array.from({ length: many }, () => arrive())
  await settled()
  const loops = members.map(async ({ session }, index) => {
    for await (const message of session) t.fail(message)
    members[index + 1]?.session.close()
  })
  members[0]!.session.close()
  await Promise.all(loops)
  await empties(t, members)
})

t.test(`issue 8: onMessage and onInvalid that kick all of ${many} members terminate`, async t => {
  for (const frame of [{ type: 'message', data: 1 }, { type: 'message' }]) {
    const kick = (session: AnySession): void => { session.rooms.kick({ topic: session.topic }) }
    const { arrive, settled, empties } = await createHub(t, {
      onMessage: new Map([['*', kick]]),
      onInvalid: session => { kick(session); return 'answer' },
      onLeave: kick
    })
    const members = Array.from({ length: many }, () => arrive())
    await settled()
    for (const { socket } of members) socket.receive(frame)
    await empties(t, members)
  }
})

t.test('issue 8: an authorize that calls reauthorize for the topic when it is asked about a member terminates', async t => {
  let asked = 0
  const { arrive, rooms, settled, empties } = await createHub(t, {
    authorize: ({ action }) => {
      if (action !== 'stay') return true
      if (++asked > 1_000_000) throw new Error('for ever')
      rooms.reauthorize({ topic: 'news' })
      return false
    }
  })
  const members = Array.from({ length: 300 }, () => arrive())
  await settled()
  await rooms.reauthorize({ topic: 'news' })
  await empties(t, members)
  t.ok(asked <= 300 * 3, `asked ${asked} times`)
})

t.test('issue 8: a consumer of rooms.subscribe that answers each message with another does not starve the event loop', async t => {
  const { hub, rooms } = await createHub(t)
  let echoes = 0
  const echo = (async () => {
    for await (const n of rooms.subscribe('news')) {
      if (++echoes === 200_000) break
      rooms.broadcast('news', n).catch(() => {}) // rejects once the app has closed
    }
  })()
  await rooms.broadcast('news', 1)
  await new Promise(resolve => setTimeout(resolve, 1))
  t.ok(echoes < 200_000, `${echoes} before a timer ran`)
  await hub.close()
  await echo
})

t.test('issue 8: rooms.reauthorize from an asynchronous authorize, or from the onError of its failure, does not starve the event loop', async t => {
  let asked = 0
  let goesOn = true
  const { arrive, rooms, settled } = await createHub(t, {
    authorize: async ({ action }) => {
      if (action !== 'stay') return true
      asked++
      await null
      if (goesOn) rooms.reauthorize({ topic: 'news' })
      return true
    }
  })
  for (let i = 0; i < 3; i++) arrive()
  await settled()
  rooms.reauthorize({ topic: 'news' })
  await new Promise(resolve => setTimeout(resolve, 20))
  goesOn = false
  t.ok(asked < 100_000, `asked ${asked} times before a timer ran`)

  const failing = await createHub(t, {
    authorize: ({ action }) => {
      if (action === 'stay') throw new Error('the database is away')
      return true
    },
    onError: () => { failing.rooms.reauthorize({ topic: 'news' }) }
  })
  const members = Array.from({ length: 30 }, () => failing.arrive())
  await failing.settled()
  await failing.rooms.reauthorize({ topic: 'news' })
  await failing.empties(t, members)
})
