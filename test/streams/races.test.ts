import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { memoryBroker } from '../../lib/index.ts'
import type { Broker, Outcome } from '../../types/index.ts'
import { kInside } from '../../lib/symbols.ts'
import { connect, until, type AnyOptions } from '../helpers/app.ts'
import { members, rawReader, reader, rest, serveStreams, slowBroker } from '../helpers/streams.ts'

const fill = 'x'.repeat(200_000)

/** A memory broker that answers publications for which `fails` says so with another outcome. */
function failingBroker (fails: (text: string) => Outcome | undefined): Broker {
  const broker = memoryBroker()
  const publish = broker.publish.bind(broker)
  broker.publish = batch => {
    const outcome = fails(batch[0]!.tail.toString())
    return outcome === undefined ? publish(batch) : [outcome]
  }
  return broker
}

/** Writes until a reader that has stopped reading falls behind. Returns the number of messages. */
async function writeUntilBehind (rooms: any, write: (payload: unknown) => Promise<unknown>): Promise<number> {
  let sent = 0
  for (; rooms.stats().lagging === 0 && rooms.stats().slow === 0 && sent < 500; sent++) {
    await write({ n: sent, fill })
    await turn()
  }
  return sent
}

async function serveSlow (t: Test, policy: string, options: AnyOptions = {}, bytes = 100_000) {
  return serveStreams(t, options, { slow: { policy, bytes }, history: { bytes: 500_000_000 } })
}

for (const [kind, broker] of [['the memory broker', memoryBroker], ['a broker that answers later', slowBroker]] as const) {
  t.test(`${kind}: stop during a write, writes that were not awaited, ends at once`, async t => {
    const { rooms, url, claim } = await serveStreams(t, { broker: broker() })
    const client = await reader(t, url)
    const run = await claim()
    const writes = [1, 2, 3].map(n => run.write(n))
    const stops = [rooms.stop('run:1'), rooms.stop('run:1')]
    const late = run.write(4)
    const end = run.end('too late')
    t.equal(run.signal.aborted, true, 'at once')
    await t.rejects(late, { code: 'FST_ROOMS_STREAM_ENDED' })
    t.same(await Promise.all(stops), [true, false])
    t.match(await end, { reason: 'stopped' })
    const ids = await Promise.all(writes)
    t.match(await client.rest(), [1, 2, 3, { type: 'end', reason: 'stopped', data: undefined }, { type: 'bye', code: 1000 }], 'all that was written before comes before the end')
    t.same((await rooms.history('run:1')).messages.map(({ id }: any) => id), ids)
    t.equal(rooms.stats().errors, 0, 'that the stream has ended is not an error of the host')
  })

  t.test(`${kind}: joins at the moment of the end get everything once`, async t => {
    const { rooms, url, claim } = await serveStreams(t, { broker: broker(), onJoin: () => sleep(5) })
    for (let round = 0; round < 10; round++) {
      const name = `run:${round}`
      const run = await claim(name)
      await run.write('a')
      const joins = Array.from({ length: 8 }, async (_, n) => {
        await sleep(n)
        return n % 2 === 0 ? connect(t, `${url}/rooms/${name}`) : rawReader(t, url, '', name)
      })
      await sleep(round)
      await run.write('b')
      await run.end()
      for (const [index, client] of (await Promise.all(joins)).entries()) {
        t.match(await client.closed, { code: 1000 })
        if (index % 2 === 1) t.same(client.received, ['a', 'b'])
        else t.match(await rest(client), ['a', 'b', { type: 'end', reason: 'done' }, { type: 'bye', code: 1000 }])
      }
    }
    t.equal(rooms.stats().members, 0)
  })

  t.test(`${kind}: a reader that reads slowly under drop is sent the end behind the gap`, async t => {
    const { rooms, url, claim } = await serveSlow(t, 'drop', { broker: broker() })
    const run = await claim()
    const slow = await reader(t, url)
    const raw = await rawReader(t, url)
    slow.socket.pause()
    raw.socket.pause()
    await writeUntilBehind(rooms, payload => run.write(payload))
    await until(async () => { await run.write({ fill }); return rooms.stats().lagging === 2 })
    const last = await run.write('last')
    const { id } = await run.end('data')
    slow.socket.resume()
    raw.socket.resume()
    t.equal((await slow.closed).code, 1000)
    t.equal((await raw.closed).code, 1000)
    const [gap, end, bye] = (await slow.rest()).slice(-3) as any[]
    t.match(gap, { type: 'gap', reason: 'slow', to: last })
    t.same(end, { type: 'end', id, reason: 'done', data: 'data' })
    t.match(bye, { type: 'bye', code: 1000 })
    t.notOk(raw.received.some(text => text.includes('"end"')))
  })

  t.test(`${kind}: under latest the end follows the newest values`, async t => {
    const { rooms, url, claim } = await serveSlow(t, 'latest', { broker: broker() }, 500_000)
    const run = await claim()
    const slow = await reader(t, url)
    slow.socket.pause()
    await writeUntilBehind(rooms, payload => run.write(payload, { key: 'big' }))
    await run.write('unnamed')
    const { id } = await run.end()
    slow.socket.resume()
    t.equal((await slow.closed).code, 1000)
    t.match((await slow.rest()).slice(-3), ['unnamed', { type: 'end', id, reason: 'done' }, { type: 'bye', code: 1000 }], 'the end is no value that replaces another')
  })

  t.test(`${kind}: a reader that is slow at the end itself, and one that is replayed over it`, async t => {
    const { rooms, url, claim } = await serveSlow(t, 'drop', { broker: broker() })
    const run = await claim()
    const slow = await reader(t, url)
    slow.socket.pause()
    const { transport } = [...rooms[kInside].hub.connections][0]
    // Fills what the network takes, and then what is left is of an earlier turn.
    let written = 0
    for (; transport.bufferedBytes === 0; written++) {
      await run.write({ fill })
      await turn()
    }
    const replayed = await connect(t, `${url}/rooms/run:1`)
    replayed.socket.pause()
    await members(rooms, 2)
    const { id } = await run.end()
    await turn()
    replayed.socket.resume()
    slow.socket.resume()
    for (const client of [slow, replayed]) {
      t.equal((await client.closed).code, 1000)
      t.match((await rest(client)).slice(-2), [{ type: 'end', id }, { type: 'bye', code: 1000 }])
    }
    t.equal((await rest(replayed)).filter(frame => (frame as any).fill !== undefined).length, written)
  })

  t.test(`${kind}: members for which onJoined runs get the end in its place, and bye when it has settled`, async t => {
    let settle!: () => void
    const { rooms, url, claim } = await serveStreams(t, { broker: broker(), onJoined: async session => { await session.send('state' as never); await new Promise<void>(resolve => { settle = resolve }) } })
    const run = await claim()
    await run.write('a')
    const client = await reader(t, url)
    await until(() => settle !== undefined)
    await run.write('b')
    const { id } = await run.end()
    await sleep(20)
    t.equal(rooms.stats().members, 1)
    settle()
    t.match(await client.rest(), ['a', { type: 'direct', data: 'state' }, 'b', { type: 'end', id }, { type: 'bye', code: 1000 }])
    settle = undefined as never
    const late = await reader(t, url)
    await until(() => settle !== undefined)
    settle()
    t.match(await late.rest(), ['a', 'b', { type: 'end', id }, { type: 'direct', data: 'state' }, { type: 'bye', code: 1000 }])
    settle = undefined as never
    const done = await reader(t, url, `?since=${id}`)
    await until(() => settle !== undefined)
    settle()
    t.match(await done.rest(), [{ type: 'direct', data: 'state' }, { type: 'bye', code: 1000 }])
  })

  t.test(`${kind}: subscribers end with the stream`, async t => {
    const { rooms, claim } = await serveStreams(t, { broker: broker() })
    const run = await claim()
    const got: unknown[] = []
    const reading = (async () => { for await (const message of rooms.subscribe('run:1')) got.push(message) })()
    if (kind.includes('later')) await sleep(10)
    await run.write('a')
    await run.end('data')
    await reading
    t.same(got, ['a'])
    for await (const message of rooms.subscribe('run:1')) t.fail(String(message))
    await until(() => rooms.stats().topics === 0)
  })

  t.test(`${kind}: a drain ends the streams as lost when the members have gone`, async t => {
    const { app, rooms, url, claim } = await serveStreams(t, { broker: broker(), drain: { timeout: 200 } })
    const client = await reader(t, url)
    const run = await claim()
    await run.write('a')
    const draining = rooms.drain()
    await t.rejects(claim('run:2'), { code: 'FST_ROOMS_DRAINING' })
    const b = run.write('b')
    await draining
    t.ok(await b)
    t.match(await client.closed, { code: 1001 })
    t.equal(run.signal.aborted, true)
    t.match(run.signal.reason, { name: 'AbortError', message: 'stream "run:1" was lost' })
    t.match(await rooms.history('run:1'), { messages: [{ data: 'a' }, { data: 'b' }], ended: { reason: 'lost' } })
    t.equal(rooms.stats().streams, 0)
    await app.close()
    await t.rejects(claim('run:2'), { code: 'FST_ROOMS_CLOSED' })
    const { hub, registry } = rooms[kInside]
    await t.rejects(hub.endedAt(registry.get('run:1'), 'run:1', '0'), { code: 'FST_ROOMS_CLOSED' })
  })
}

t.test('await using ends a stream that was left', async t => {
  const { rooms, claim } = await serveStreams(t)
  const run = await claim()
  await run[Symbol.asyncDispose]()
  t.match((await rooms.history('run:1')).ended, { reason: 'failed', data: undefined })
  t.equal(run.signal.reason.name, 'AbortError')
  const done = await claim('run:2')
  await done.end()
  await done[Symbol.asyncDispose]()
  t.match((await rooms.history('run:2')).ended, { reason: 'done' })
})

t.test('fail tells readers an error that is for them, and nothing of others', async t => {
  const { rooms, claim } = await serveStreams(t)
  const one = await claim('run:1')
  t.match(await one.fail(Object.assign(new Error('the prompt is too long'), { statusCode: 413, code: 'TOO_LONG', secret: 'x' })), { reason: 'failed' })
  t.same((await rooms.history('run:1')).ended.data, { code: 'TOO_LONG', message: 'the prompt is too long' })
  const two = await claim('run:2')
  await two.fail('a secret')
  t.equal((await rooms.history('run:2')).ended.data, undefined)
  t.match(two.signal.reason, { message: 'a secret' })
  const three = await claim('run:3')
  await t.rejects(three.end(() => {}), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
  await t.rejects(three.write(undefined), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
  await t.rejects(three.write(1, { key: '' }), { code: 'FST_ROOMS_INVALID_ARGUMENT' })
  t.ok(await three.write(1), 'the stream goes on')
  t.match(await three.end(null), { reason: 'done' })
  t.equal((await rooms.history('run:3')).ended.data, null)
  t.equal(rooms.stats().errors, 2, 'refused writes go to onError, because they need not be awaited')
})

t.test('a message that the broker does not accept ends the stream as failed', async t => {
  for (const state of ['failed', 'unknown'] as const) {
    const { rooms, url, claim } = await serveStreams(t, { broker: failingBroker(text => text.includes('bad') ? { state } : undefined) })
    const client = await reader(t, url)
    const run = await claim()
    await run.write('a')
    await t.rejects(run.write('bad'), { code: 'FST_ROOMS_BROKER_DOWN' })
    t.match(run.signal.reason, { code: 'FST_ROOMS_BROKER_DOWN' })
    await t.rejects(run.write('b'), { code: 'FST_ROOMS_STREAM_ENDED' })
    t.match(await client.rest(), ['a', { type: 'end', reason: 'failed' }, { code: 1000 }])
    const piped = await claim('run:2')
    await t.rejects(piped.pipe((async function * () { yield 'a'; yield 'bad'; await new Promise(() => {}) })()), { code: 'FST_ROOMS_BROKER_DOWN' })
    t.match((await rooms.history('run:2')).ended, { reason: 'failed' })
  }
})

t.test('a broker that does not take the end: the topic is free again', async t => {
  let isDown = true
  const { rooms, claim } = await serveStreams(t, { broker: failingBroker(() => isDown ? { state: 'failed' } : undefined) })
  const run = await claim()
  await t.rejects(run.pipe((async function * () { yield 'a' })()), { code: 'FST_ROOMS_BROKER_DOWN' })
  await t.rejects(run.end(), { code: 'FST_ROOMS_BROKER_DOWN' })
  const two = await claim()
  await t.rejects(rooms.stop('run:1'), { code: 'FST_ROOMS_BROKER_DOWN' })
  t.ok(two.signal.aborted)
  isDown = false
  const three = await claim()
  t.match(await three.fail(new Error('down')), { reason: 'failed' })
})

t.test('a topic that was ended elsewhere: the producer has lost it', async t => {
  const broker = memoryBroker()
  const { rooms, claim } = await serveStreams(t, { broker })
  const endElsewhere = (topic: string) => broker.publish([{ v: 1, uid: topic, node: 'other', topic, tail: Buffer.from('"reason":"lost"}'), payloadLength: 0, end: 'lost', retention: { size: 10, bytes: 1_000, ttl: 60_000, latest: false }, deadline: Infinity }])
  const run = await claim()
  endElsewhere('run:1')
  await t.rejects(run.write('x'), { code: 'FST_ROOMS_STREAM_ENDED' })
  t.match(run.signal.reason, { name: 'AbortError' })
  t.same(await run.end(), { topic: 'run:1', reason: 'lost' })
  const two = await claim('run:2')
  endElsewhere('run:2')
  t.same(await two.end(), { topic: 'run:2', reason: 'lost' })
  t.equal(rooms.stats().errors, 0)
})

t.test('a broker that cannot tell whether a topic has ended: no claim', async t => {
  const broker = slowBroker()
  const { claim } = await serveStreams(t, { broker })
  broker.fails = () => { throw new Error('cut') }
  await t.rejects(claim(), { code: 'FST_ROOMS_BROKER_SILENT' })
  broker.fails = undefined
  const run = await claim()
  t.match(await run.end(), { reason: 'done' })
})

t.test('a producer that is stopped while it claims its topic', async t => {
  const { rooms, claim } = await serveStreams(t, { broker: slowBroker() })
  const claiming = claim()
  t.equal(await rooms.stop('run:1'), true)
  const [outcome] = await Promise.allSettled([claiming])
  if (outcome.status === 'fulfilled') t.equal(outcome.value.signal.aborted, true)
  else t.match(outcome.reason, { code: 'FST_ROOMS_STREAM_ENDED' })
  t.match((await rooms.history('run:1')).ended, { reason: 'stopped' })
  t.equal(rooms.stats().streams, 0)
})

t.test('messages that have expired: the topic has ended all the same', async t => {
  const { rooms, url, claim, get } = await serveStreams(t, {}, { history: { ttl: 30 } })
  const run = await claim()
  const first = await run.write('a')
  const { id } = await run.end('data')
  await sleep(60)
  await t.rejects(claim(), { code: 'FST_ROOMS_STREAM_ENDED' })
  const ended = { id, reason: 'done' }
  t.same(await get(), { topic: 'run:1', id, count: 0, messages: [], complete: false, ended })
  const late = await reader(t, url)
  t.same(await late.rest(), [{ type: 'end', ...ended }, { type: 'bye', code: 1000, reason: 'normal', id }], 'its reason is known, and its data is not')
  const resumed = await reader(t, url, `?since=${first}`)
  t.match(resumed.hello, { recovered: false })
  t.match(await resumed.rest(), [{ type: 'end', ...ended }, { code: 1000 }])
  const raw = await rawReader(t, url)
  t.match(await raw.closed, { code: 1000 })
  t.same(raw.received, [])
  t.equal(rooms.stats().topics, 0)
})

t.test('more readers than end in one turn', async t => {
  const { rooms, url, claim } = await serveStreams(t)
  const run = await claim()
  const other = await claim('run:2')
  const clients = await Promise.all(Array.from({ length: 620 }, (_, n) => reader(t, url, '', n < 610 ? 'run:1' : 'run:2')))
  await run.write('a')
  await Promise.all([run.end(), other.end()])
  for (const [index, client] of clients.entries()) t.match(await client.rest(), [...(index < 610 ? ['a'] : []), { type: 'end' }, { type: 'bye', code: 1000 }])
  t.equal(rooms.stats().members, 0)
})
