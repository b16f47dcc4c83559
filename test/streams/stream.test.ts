import t from 'tap'
import { memoryBroker } from '../../lib/index.ts'
import { kInside } from '../../lib/symbols.ts'
import type { Broker } from '../../types/index.ts'
import { joinStream, openStream } from '../helpers/event-stream.ts'
import { SlowBroker } from '../helpers/slow-broker.ts'
import { createRooms, until } from '../helpers/app.ts'
import { members, rawReader, reader, serveStreams, slowBroker } from '../helpers/streams.ts'

const bye = (id: unknown) => ({ type: 'bye', code: 1000, reason: 'normal', id })

for (const [kind, broker] of [['the memory broker', memoryBroker], ['a broker that answers later', slowBroker]] as const) {
  t.test(`${kind}: a stream is written, read and ended`, async t => {
    const { rooms, url, claim, get } = await serveStreams(t, { broker: broker() })
    const early = await reader(t, url)
    const run = await claim()
    t.equal(run.topic, 'run:1')
    t.equal(rooms.stats().streams, 1)
    const ids = [await run.write('a'), await run.write('b', { key: 'k' })]
    const middle = await reader(t, url, `?since=${ids[0]}`)
    t.match(middle.hello, { recovered: true, replayed: 1 })
    const late = await reader(t, url)
    t.match(late.hello, { replayed: 2, recovered: undefined }, 'without since a stream is read from its beginning')
    ids.push(await run.write('c'))
    const end = await run.end({ tokens: 3 })
    t.match(end, { topic: 'run:1', reason: 'done' })
    t.equal(rooms.stats().streams, 0)
    t.notOk(run.signal.aborted)
    const ended = { type: 'end', id: end.id, reason: 'done', data: { tokens: 3 } }
    t.same(await early.rest(), ['a', 'b', 'c', ended, bye(end.id)])
    t.same(await middle.rest(), ['b', 'c', ended, bye(end.id)])
    t.same(await late.rest(), ['a', 'b', 'c', ended, bye(end.id)])
    t.same(await early.closed, { code: 1000, reason: 'normal' })

    const after = await reader(t, url)
    t.match(after.hello, { replayed: 4, recovered: undefined })
    t.same(await after.rest(), ['a', 'b', 'c', ended, bye(end.id)], 'a join after the end')
    const resumed = await reader(t, url, `?since=${ids[1]}`)
    t.match(resumed.hello, { recovered: true, replayed: 2, id: ids[1] })
    t.same(await resumed.rest(), ['c', ended, bye(end.id)])
    const done = await reader(t, url, `?since=${end.id}`)
    t.match(done.hello, { recovered: true, replayed: 0, id: end.id })
    t.same(await done.rest(), [bye(end.id)], 'one that has the end is not sent it again')
    const lost = await reader(t, url, `?since=${'0'.repeat(16)}-1`)
    t.match(lost.hello, { recovered: false, id: end.id })
    t.same(await lost.rest(), [ended, bye(end.id)], 'one whose position is lost is told the end')
    const newest = await reader(t, url, '?since=latest')
    t.same(await newest.rest(), ['b', 'c', ended, bye(end.id)], 'the end replaces no value')
    await members(rooms, 0)

    t.same(await get(), { topic: 'run:1', id: end.id, count: 0, messages: [{ id: ids[0], data: 'a' }, { id: ids[1], data: 'b', key: 'k' }, { id: ids[2], data: 'c' }], complete: true, ended: { id: end.id, reason: 'done', data: { tokens: 3 } } })
    await t.rejects(rooms.stream('run:1'), { code: 'FST_ROOMS_STREAM_ENDED', statusCode: 410 })
    await t.rejects(rooms.broadcast('run:1', 'x'), { code: 'FST_ROOMS_STREAM_ENDED' })
    await t.rejects(run.write('x'), { code: 'FST_ROOMS_STREAM_ENDED' })
    t.same(await run.end(), end, 'the first end counts')
    t.same(await run.fail(new Error('late')), end)
    t.same(await rooms.stop('run:1'), false)
    t.equal(rooms.stats().brokerFaults, 0)
  })

  t.test(`${kind}: raw readers get messages alone, and the close`, async t => {
    const { rooms, url, claim } = await serveStreams(t, { broker: broker() })
    const run = await claim()
    await run.write('a')
    const early = await rawReader(t, url)
    await members(rooms, 1)
    const v1 = await reader(t, url) // so that both encodings are kept
    await run.write('b')
    const end = await run.end('data')
    t.same(await early.closed, { code: 1000, reason: 'normal' })
    t.same(early.received, ['a', 'b'])
    await v1.closed
    for (const [query, expected] of [['', ['a', 'b']], ['?since=0', ['a', 'b']], [`?since=${end.id}`, []], ['?since=latest', ['b']], [`?since=${end.id!.replace(/3$/, '2')}`, []]] as const) {
      const late = await rawReader(t, url, query)
      t.same(await late.closed, { code: 1000, reason: 'normal' }, query)
      t.same(late.received, expected, query)
    }
    const lost = await rawReader(t, url, `?since=${'0'.repeat(16)}-1`)
    t.equal((await lost.closed).code, 4202)
  })

  t.test(`${kind}: reads without joining show the end`, async t => {
    const { rooms, claim, get } = await serveStreams(t, { broker: broker() })
    const run = await claim()
    const first = await run.write(1)
    t.equal((await get()).ended, undefined)
    await run.write(2)
    const third = await run.write(3)
    const waiting = get(`?since=${third}&wait=60000`)
    await until(() => rooms.stats().waiting === 1)
    const { id } = await run.end()
    const ended = { id, reason: 'done' }
    t.match(await waiting, { id, messages: [], recovered: true, complete: true, ended }, 'a poll is woken by the end')
    t.match(await get(`?since=${id}&wait=60000`), { id, messages: [], recovered: true, complete: true, ended }, 'a poll behind the end does not wait')
    t.match(await get(`?since=${third}&wait=60000`), { id, messages: [], ended })
    t.match(await get(`?since=${first}&limit=1`), { messages: [{ data: 2 }], ended: undefined, complete: false }, 'a page that does not reach the end')
    t.match(await get(`?since=${first}&limit=2`), { id: third, messages: [{ data: 2 }, { data: 3 }], ended: undefined })
    t.match(await get(`?since=${first}&limit=3`), { id, messages: [{ data: 2 }, { data: 3 }], ended })
    const two = await get('?limit=2')
    t.same(two.messages.map(({ data }: any) => data), [2, 3], 'the end does not count as one of the newest')
    t.match(two, { id, complete: false, ended })
    t.match(await get('?limit=3'), { complete: true, ended })
    t.match(await get('?since=latest'), { messages: [{ data: 3 }], ended })
    t.match(await get(`?since=${'0'.repeat(16)}-1`), { recovered: false, ended })
    t.match(await rooms.history('run:1', { since: third }), { id, messages: [], recovered: true, complete: true, ended })
    t.match(await rooms.history('run:1'), { messages: [{ data: 1 }, { data: 2 }, { data: 3 }], ended })

    const { hub, registry } = rooms[kInside]
    const endedAt = (since: string | undefined, topic = 'run:1'): Promise<boolean> => hub.endedAt(registry.get(topic), topic, since)
    t.same(await Promise.all([first, third, id, `${'0'.repeat(16)}-9`, '0'].map(since => endedAt(since))), [false, false, true, false, false])
    t.equal(await endedAt(id, 'run:2'), false)
    t.equal(await endedAt(id, 'plain'), false)
    t.equal(await endedAt(id, 'bare'), false)
  })

  t.test(`${kind}: one producer, and no other writer`, async t => {
    const { app, rooms, claim } = await serveStreams(t, { broker: broker(), authorize: () => true }, { post: true })
    const [one, two] = await Promise.allSettled([claim(), claim()])
    t.equal(one.status, 'fulfilled')
    t.match(two, { status: 'rejected', reason: { code: 'FST_ROOMS_STREAM_TAKEN', statusCode: 409 } })
    await t.rejects(rooms.broadcast('run:1', 'x'), { code: 'FST_ROOMS_STREAM_TAKEN' })
    const post = async () => { const { statusCode, body } = await app.inject({ method: 'POST', url: '/rooms/run:1', payload: '"x"', headers: { 'content-type': 'application/json' } }); return [statusCode, JSON.parse(body).code] }
    t.same(await post(), [409, 'FST_ROOMS_STREAM_TAKEN'])
    t.equal(await rooms.stop('run:1'), true)
    t.same(await post(), [410, 'FST_ROOMS_STREAM_ENDED'])
    await t.rejects(claim('plain'), { code: 'FST_ROOMS_NOT_A_STREAM' })
    await t.rejects(rooms.stop('plain'), { code: 'FST_ROOMS_NOT_A_STREAM' })
    await t.rejects(claim('other'), { code: 'FST_ROOMS_NO_SUCH_TOPIC' })
    t.equal(await rooms.stop('run:2'), false)
    t.match(await rooms.broadcast('run:3', 'before'), { published: true }, 'a topic without a producer takes messages of the host')
    const run = await claim('run:3')
    await run.end()
    t.equal((await rooms.history('run:3')).messages.length, 1)
  })
}

t.test('members cannot write to a stream', async t => {
  const { url, claim } = await serveStreams(t)
  const run = await claim()
  const client = await reader(t, url)
  for (const frame of [{ type: 'message', data: 'x' }, { type: 'direct', to: client.hello.session, data: 'x' }]) {
    t.match(await client.ask(frame), { ok: false, error: { code: 'FST_ROOMS_FORBIDDEN' } })
  }
  const raw = await rawReader(t, url)
  raw.send('"x"')
  t.match(await raw.closed, { code: 4003 })
  t.match(await client.ask({ type: 'history' }), { ok: true, data: { messages: [], complete: true } })
  await run.end(1)
  t.match(await client.rest(), [{ type: 'ack' }, { type: 'ack' }, { type: 'ack' }, { type: 'end', data: 1 }, { code: 1000 }])
})

t.test('options of a stream that are not possible are refused at registration', async t => {
  const refused: [object, RegExp][] = [
    [{ stream: true, publish: true }, /its members may not publish, so give no "publish"/],
    [{ stream: true, history: false }, /"history: false" is not possible/],
    [{ stream: true, history: { latest: true } }, /"history.latest" is not possible/]
  ]
  for (const [topic, message] of refused) await t.rejects(createRooms(t, { topics: { run: topic as never } }), { code: 'FST_ROOMS_INVALID_TOPIC_OPTION', message })
  await t.rejects(createRooms(t, { topics: { run: { stream: false } as never } }), { code: 'FST_ROOMS_INVALID_OPTION', message: /"topics.run.stream" takes true/ })
  const broker = memoryBroker()
  const without: Broker = { ...broker, capabilities: { ...broker.capabilities, history: false }, start: broker.start, attach: broker.attach, detach: broker.detach, publish: broker.publish, control: broker.control, close: broker.close }
  await t.rejects(createRooms(t, { topics: { run: { stream: true } as never }, broker: without }), { code: 'FST_ROOMS_NO_HISTORY' })
})

t.test('what a stream keeps', async t => {
  const rules: [object, object, object][] = [
    [{}, {}, { size: Infinity, bytes: 2_097_152, ttl: 600_000, replay: Infinity, latest: false }],
    [{ history: true }, {}, { size: Infinity, bytes: 2_097_152, ttl: 600_000, replay: Infinity }],
    [{}, { history: { size: 1, replay: 1 } }, { size: Infinity, bytes: 2_097_152, ttl: 600_000, replay: Infinity }],
    [{ history: { size: 2, bytes: 3, ttl: 4, replay: 5 } }, {}, { size: 2, bytes: 3, ttl: 4, replay: 5 }]
  ]
  for (const [topic, options, expected] of rules) {
    const { rooms } = await serveStreams(t, options, topic)
    t.match(rooms[kInside].registry.get('run:1'), { stream: true, history: expected })
    t.equal(rooms[kInside].registry.get('plain').stream, false)
  }
})

t.test('a stream that is longer than it may keep: late readers get its newest part and the end', async t => {
  const { url, claim, get } = await serveStreams(t, {}, { history: { size: 3 } })
  const run = await claim()
  const ids = [await run.write(1), await run.write(2), await run.write(3), await run.write(4)]
  const { id } = await run.end()
  t.match(await (await reader(t, url)).rest(), [3, 4, { type: 'end', id }, { code: 1000 }])
  const lost = await reader(t, url, `?since=${ids[0]}`)
  t.match(lost.hello, { recovered: false })
  t.match(await lost.rest(), [{ type: 'end', id }, { code: 1000 }])
  t.match(await get(), { complete: false, messages: [{ data: 3 }, { data: 4 }], ended: { id } })
})

t.test('an answer of more than a replay of other topics takes is replayed whole', async t => {
  const { url, claim } = await serveStreams(t)
  const run = await claim()
  for (let n = 0; n < 19; n++) await run.write('x'.repeat(100_000))
  await run.end()
  const late = await reader(t, url)
  t.match(late.hello, { replayed: 20 })
  t.equal((await late.rest()).length, 21)
})

t.test('a claim while the end is on its way, and an end without a position', async t => {
  const broker = slowBroker()
  const { claim } = await serveStreams(t, { broker })
  const run = await claim()
  const end = run.end()
  await t.rejects(claim(), { code: 'FST_ROOMS_STREAM_ENDED' })
  await end
  const bare = memoryBroker()
  const publish = bare.publish.bind(bare)
  bare.publish = batch => batch[0]!.end === undefined ? publish(batch) : [{ state: 'ok' }]
  const other = await (await serveStreams(t, { broker: bare })).claim()
  t.same(await other.end(), { topic: 'run:1', reason: 'done' })
})

for (const [kind, broker] of [['the memory broker', memoryBroker], ['a broker that answers later', slowBroker]] as const) {
  t.test(`${kind}: an event stream has the end with its id, and is answered 204 behind it`, async t => {
    const waiting = broker()
    const { url, claim } = await serveStreams(t, { broker: waiting })
    const run = await claim()
    const first = await run.write('a')
    const early = await joinStream(t, `${url}/rooms/run:1`)
    const b = await run.write('b')
    const { id } = await run.end({ tokens: 2 })
    await early.ended
    const end = { type: 'end', id, reason: 'done', data: { tokens: 2 } }
    t.match(early.frames, [{ type: 'hello' }, { data: 'a' }, { data: 'b' }, end, { type: 'bye', code: 1000 }])
    t.equal(early.events.find(({ data }) => data?.includes('"end"'))?.id, id, 'an EventSource comes back with the position of the end')
    t.notOk(early.events.some(({ retry }) => retry !== undefined))
    const resumed = await joinStream(t, `${url}/rooms/run:1`, { 'last-event-id': b })
    await resumed.ended
    t.match(resumed.frames, [{ type: 'hello', recovered: true, replayed: 1 }, end, { type: 'bye', code: 1000 }])
    for (const [query, headers] of [['', { 'last-event-id': id! }], [`?since=${id}`, {}], [`?since=${first}`, { 'last-event-id': id! }]] as const) {
      const over = await openStream(t, `${url}/rooms/run:1${query}`, headers)
      await over.ended
      t.equal(over.status, 204)
      t.equal(over.text, '')
    }
    const lost = await joinStream(t, `${url}/rooms/run:1`, { 'last-event-id': 'malformed' })
    await lost.ended
    t.match(lost.frames, [{ type: 'hello', recovered: false }, end, { type: 'bye', code: 1000 }])
    if (waiting instanceof SlowBroker) {
      waiting.fails = () => { throw new Error('cut') }
      const unknown = await joinStream(t, `${url}/rooms/run:1`, { 'last-event-id': id! })
      await unknown.ended
      t.match(unknown.frames, [{ type: 'hello', recovered: true, replayed: 0 }, { type: 'bye', code: 1000 }], 'if the broker cannot tell, the request joins')
    }
  })
}
