import t, { type Test } from 'tap'
import { createRooms, until } from '../helpers/app.ts'
import { SlowBroker } from '../helpers/slow-broker.ts'
import { random } from '../helpers/random.ts'
import { Waiters } from '../../lib/history/waiters.ts'
import type { RoomReader } from '../../lib/room/reader.ts'
import { turnsOf } from '../helpers/turns.ts'

const sleep = (milliseconds: number) => new Promise<void>(resolve => { setTimeout(resolve, milliseconds) })

/** A broker that answers as one over a network does. */
async function serve (t: Test, broker: SlowBroker, options: object = {}) {
  const app = await createRooms(t, { topics: { news: { history: { size: 1_000 } } }, broker, ...options })
  const rooms = app.rooms as any
  const top = async (): Promise<string> => (await rooms.history('news')).id
  const poll = async (since: string, wait = 60_000, limit = 100) => {
    const { statusCode, body } = await app.inject(`/rooms/news?since=${since}&wait=${wait}&limit=${limit}`)
    return { status: statusCode, ...JSON.parse(body) }
  }
  return { app, rooms, top, poll, waiting: (): number => app.rooms.stats().waiting, publish: (data: unknown) => rooms.broadcast('news', data) }
}

t.test('a poller misses nothing, whatever the broker and the messages do meanwhile', async t => {
  for (let seed = 1; seed <= 5; seed++) {
    const next = random(seed)
    const broker = new SlowBroker(() => sleep(next() * 4))
    const { top, poll, publish } = await serve(t, broker)
    let since = await top()
    const seen: number[] = []
    const last = 60
    const publishing = (async () => {
      for (let n = 1; n <= last; n++) {
        await publish(n)
        await sleep(next() * 6)
      }
    })()
    while (seen.at(-1) !== last) {
      const page = await poll(since, 1 + Math.floor(next() * 20), 1 + Math.floor(next() * 5))
      t.equal(page.recovered, true)
      seen.push(...page.messages.map(({ data }: any) => data))
      since = page.id
    }
    await publishing
    t.same(seen, Array.from({ length: last }, (_, index) => index + 1), `seed ${seed}`)
  }
})

t.test('requests behind the same position share one reading', async t => {
  const broker = new SlowBroker(() => sleep(5))
  const { top, poll, publish, waiting } = await serve(t, broker)
  const since = await top()
  broker.readings = 0
  const waits = Array.from({ length: 50 }, () => poll(since))
  await until(() => waiting() === 50 && broker.readings > 0)
  await sleep(30)
  t.equal(broker.readings, 1, 'the room was not there yet')
  const more = [poll(since), poll(since, 60_000, 5)]
  await until(() => waiting() === 52)
  t.equal(broker.readings, 1, 'the room is at this position')
  const { id } = await publish('a')
  for (const wait of [...waits, ...more]) t.match(await wait, { status: 200, id, messages: [{ id, data: 'a' }] })
  t.equal(broker.readings, 2, 'one for each position')
})

t.test('a wait that ends during a reading is answered after it', async t => {
  const broker = new SlowBroker(() => sleep(50))
  const { top, poll, publish } = await serve(t, broker)
  const since = await top()
  t.match(await poll(since, 1), { status: 200, id: since, messages: [], complete: true })
  const { id } = await publish('a')
  t.match(await poll(since, 1), { status: 200, id, messages: [{ data: 'a' }] })
})

t.test('a message that comes during a reading is found by the next one', async t => {
  let release: (() => void) | undefined
  const broker = new SlowBroker(() => release === undefined ? sleep(0) : new Promise(resolve => { release = resolve }))
  const { top, poll, rooms, waiting } = await serve(t, broker)
  const since = await top()
  const reader = rooms.subscribe('news')
  const next = reader.next()
  await sleep(10)
  const answer = poll(`${since.slice(0, -1)}0`)
  t.equal(waiting() <= 1, true)
  await until(() => waiting() === 1)
  await rooms.broadcast('news', 'x')
  t.equal((await next).value, 'x')
  t.match(await answer, { messages: [{ data: 'x' }] })
  await reader.return()
})

t.test('a broker that cannot read: 503, and the next request is served', async t => {
  const broker = new SlowBroker(() => sleep(1))
  const { app, top, poll, waiting } = await serve(t, broker, { onError: () => {} })
  const since = await top()
  broker.fails = () => { throw new Error('out of order') }
  t.match(await Promise.all([poll(since), poll(since)]), [{ status: 503, code: 'FST_ROOMS_BROKER_SILENT' }, { status: 503 }])
  t.equal((await app.inject('/rooms/news')).statusCode, 503)
  broker.fails = undefined
  t.equal(waiting(), 0)
  t.equal(app.rooms.stats().topics, 0)
  t.match(await poll(since, 1), { status: 200, messages: [] })
})

t.test('a broker that does not attach the topic: the waits fail, and the next request is served', async t => {
  const broker = new SlowBroker(() => sleep(1))
  const { app, top, poll, waiting } = await serve(t, broker)
  const since = await top()
  const { attach } = broker
  broker.attach = async () => { throw new Error('refused by 10.0.0.1') }
  for (const { status, code, message } of await Promise.all([poll(since), poll(since)])) {
    t.equal(status, 503)
    t.equal(code, 'FST_ROOMS_BROKER_DOWN')
    t.notMatch(message, /10\.0/, 'a client is not told how')
  }
  t.equal(waiting(), 0)
  t.equal(app.rooms.stats().topics, 0)
  broker.attach = attach
  t.match(await poll(since, 1), { status: 200, messages: [] })
})

t.test('a loss makes the waits look for messages that were not delivered', async t => {
  const broker = new SlowBroker(() => sleep(1))
  let handlers: any
  const start = broker.start.bind(broker)
  broker.start = async (node, given, settings) => {
    handlers = given
    // This broker delivers nothing.
    await start(node, { ...given, entry: () => {} }, settings)
  }
  const { top, poll, publish, waiting } = await serve(t, broker, { limits: { publish: 100 } })
  const since = await top()
  const answer = poll(since)
  await until(() => waiting() === 1)
  await publish('undelivered')
  await sleep(20)
  t.equal(waiting(), 1)
  handlers.lost(['news'])
  t.match(await answer, { status: 200, recovered: true, messages: [{ data: 'undelivered' }] })

  const id = await top()
  const other = poll(id, 500)
  await until(() => waiting() === 1)
  await sleep(20)
  handlers.lost(['news'])
  await sleep(50)
  t.equal(waiting(), 1, 'if there are none, the wait goes on')
  await publish('b')
  handlers.lost(['news']) // of which the room knows, since nothing has come after the first loss
  t.match(await other, { recovered: true, messages: [{ data: 'b' }] }, 'its end looks again')
})

t.test('a drain gives readings its time, and no longer', async t => {
  const quick = await serve(t, new SlowBroker(() => sleep(30)))
  const since = await quick.top()
  const answer = quick.poll(since)
  await until(() => quick.waiting() === 1)
  await quick.app.close()
  t.match(await answer, { status: 200, messages: [] })

  let hangs = false
  const stuck = await serve(t, new SlowBroker(() => hangs ? new Promise<void>(() => {}) : sleep(1)), { drain: { timeout: 100 } })
  const position = await stuck.top()
  hangs = true
  const unanswered = stuck.poll(position)
  await until(() => stuck.waiting() === 1)
  await stuck.rooms.drain()
  t.match(await unanswered, { status: 503, code: 'FST_ROOMS_DRAINING' })
  t.equal(stuck.waiting(), 0)
})

t.test('the end of a topic\'s readers ends its waits', async t => {
  let reader!: RoomReader
  const left: string[] = []
  const waiters = new Waiters({
    limit: 2,
    enter: (_definition, _topic, given) => {
      reader = given
      return { size: 0, feed: { ready: Promise.resolve(), isReady: true, position: { epoch: 'e'.repeat(16), offset: 1 }, ended: undefined } }
    },
    leave: topic => { left.push(topic) },
    read: async () => { throw new Error('unexpected') },
    failed: () => {}
  })
  const { answer } = waiters.add({} as never, 'news', { since: `${'e'.repeat(16)}-1`, limit: 10 }, 60_000)
  reader.end()
  await t.rejects(answer, { code: 'FST_ROOMS_CLOSED' })
  t.same(left, ['news'])
  t.equal(waiters.size, 0)
})

t.test('requests that take less share the reading of those that take more, and get what they would have read', async t => {
  const broker = new SlowBroker(() => sleep(5))
  const { top, poll, publish, waiting } = await serve(t, broker)
  const since = await top()
  const limits = [1, 5, 2, 3, 1, 100]
  const lost = `${'0'.repeat(16)}-7`
  const waits = limits.map(limit => poll(since, 60_000, limit))
  await until(() => waiting() === limits.length)
  await sleep(30)
  broker.readings = 0
  await Promise.all([1, 2, 3].map(publish))
  for (const [index, page] of (await Promise.all(waits)).entries()) {
    const expected = await poll(since, 1, limits[index])
    t.same({ ...page, count: 0 }, { ...expected, count: 0 }, `limit ${limits[index]}`)
    t.equal(page.messages.length, Math.min(3, limits[index]!))
    t.equal(page.complete, limits[index]! >= 3)
  }
  broker.readings = 0
  const pages = await Promise.all([1, 2, 5].map(limit => poll(lost, 60_000, limit)))
  t.same(pages.map(({ messages }) => messages.map(({ data }: any) => data)), [[3], [2, 3], [1, 2, 3]], 'the newest ones')
  for (const page of pages) t.match(page, { recovered: false, complete: false, id: `${since.split('-')[0]}-3` })
})

t.test('many requests are answered over many turns of the event loop, whatever they take, and when their waits end at once', async t => {
  const position = { epoch: 'e'.repeat(16), offset: 1 }
  const room = { size: 0, feed: { ready: Promise.resolve(), isReady: true, position, ended: undefined } }
  let reader!: RoomReader
  let messages: { offset: number, tail: Buffer, payloadLength: number }[] = []
  const waiters = new Waiters({
    limit: 10_000,
    enter: (_definition, _topic, given) => {
      reader = given
      return room
    },
    leave: () => {},
    read: async (_definition, _topic, { limit }) => {
      const some = messages.slice(0, limit)
      return { position: { ...position, offset: some.at(-1)?.offset ?? 1 }, messages: some, recovered: true, complete: some.length === messages.length }
    },
    failed: () => {}
  })
  const add = (limit: number, milliseconds: number) => waiters.add({} as never, 'news', { since: `${'e'.repeat(16)}-1`, limit }, milliseconds)
  const over = Array.from({ length: 3_000 }, () => add(10, 60_000))
  const overTurns = await turnsOf(async () => {
    for (const waiter of over) waiter.end()
    await Promise.all(over.map(({ answer }) => answer))
  })
  t.ok(overTurns >= 6, `${overTurns} turns`)
  const answers = Array.from({ length: 3_000 }, (_, n) => add(1 + n % 300, 60_000).answer)
  messages = Array.from({ length: 100 }, (_, n) => ({ offset: 2 + n, tail: Buffer.from(`"data":${n}}`), payloadLength: String(n).length }))
  const turns = await turnsOf(async () => {
    reader.push({} as never)
    await Promise.all(answers)
  })
  t.ok(turns >= 15, `${turns} turns`)
  const lengths = (await Promise.all(answers)).map(text => JSON.parse(text).messages.length)
  t.same(lengths, Array.from({ length: 3_000 }, (_, n) => Math.min(100, 1 + n % 300)))
  t.equal(waiters.size, 0)
  const some = Array.from({ length: 1_000 }, () => add(10, 60_000).answer)
  reader.push({} as never)
  await some[0]
  reader.end()
  t.equal(new Set(await Promise.all(some)).size, 1, 'the end of the room does not touch those that are being answered')
  await waiters.release(10)
})

t.test('waits that end while others are answered, and a message that comes then', async t => {
  const { poll, top, publish, rooms, waiting } = await serve(t, new SlowBroker(() => sleep(0)), { limits: { waiters: 5_000 } })
  const since = await top()
  const waits = Array.from({ length: 1_500 }, () => poll(since, 200))
  await until(() => waiting() === 1_500)
  await sleep(199)
  await publish('a')
  for (const { status, messages } of await Promise.all(waits)) if (status !== 200 || messages.length > 1) t.fail('an answer is wrong')
  t.equal(rooms.stats().waiting, 0)
})

t.test('a topic stays attached for a second after its last answer, because its client comes back; not if a position is lost or the app drains', async t => {
  const broker = new SlowBroker(() => sleep(1))
  let attached = 0
  const attach = broker.attach.bind(broker)
  broker.attach = async (...given) => {
    attached++
    return attach(...given)
  }
  const { poll, top, publish, rooms } = await serve(t, broker)
  let since = await top()
  for (let n = 0; n < 5; n++) {
    const answer = poll(since)
    await sleep(20)
    await publish(n)
    since = (await answer).id
    t.equal(rooms.stats().topics, 1)
  }
  t.equal(attached, 1)
  await until(() => rooms.stats().topics === 0)
  await poll(`${'0'.repeat(16)}-7`)
  t.equal(rooms.stats().topics, 0, 'a client that reads names at random holds no rooms')
  const waiting = poll(since)
  await until(() => rooms.stats().waiting === 1)
  t.match(await poll(`${'0'.repeat(16)}-7`), { recovered: false })
  t.equal(rooms.stats().waiting, 1, 'others go on waiting')
  await rooms.broadcast('news', 'last')
  t.match(await waiting, { messages: [{ data: 'last' }] })
  t.equal(rooms.stats().topics, 1)
  await rooms.drain()
  t.equal(rooms.stats().topics, 0)
})
