import t, { type Test } from 'tap'
import type { GapFrame, Position, Publication, ServerFrame } from '../../types/index.ts'
import { connect, createRooms, join, listen, until, type AnyOptions, type Client, type LogLine } from '../helpers/app.ts'
import { HostileBroker, type Misdeeds } from '../helpers/hostile-broker.ts'
import { random } from '../helpers/random.ts'

process.on('unhandledRejection', error => { throw error })

async function create (t: Test, misdeeds: Partial<Misdeeds>, options: AnyOptions = {}, seed = 1) {
  const broker = new HostileBroker(random(seed), misdeeds)
  const errors: Error[] = []
  const logs: LogLine[] = []
  const app = await createRooms(t, { broker, onError: error => { errors.push(error) }, limits: { publish: 300 }, ...options }, logs)
  return { app, broker, errors, logs, url: await listen(app) }
}

const framesOf = (client: Client): ServerFrame[] => client.received.map(text => JSON.parse(text))

/** Checks that a member got each message once, in order, and was told of each gap before it. Returns the data of its messages. */
function checkMember (t: Test, client: Client, { doubles }: HostileBroker, seed: number): unknown[] {
  let last: { epoch: string, offset: number } | undefined
  let told = true
  const data: unknown[] = []
  for (const frame of framesOf(client)) {
    if (frame.type === 'gap') told = true
    if (frame.type !== 'hello' && frame.type !== 'message') continue
    if (frame.type === 'message') data.push(frame.data)
    if (frame.id === undefined) continue
    const dash = frame.id.lastIndexOf('-')
    const position = { epoch: frame.id.slice(0, dash), offset: Number(frame.id.slice(dash + 1)) }
    if (frame.type === 'message' && last !== undefined) {
      let next = last.offset + 1
      while (doubles.has(`${last.epoch}-${next}`)) next++
      const isNext = last.epoch === position.epoch && position.offset <= next
      if (!isNext && !told) t.fail(`an unreported gap: ${JSON.stringify(last)}, ${frame.id} (seed ${seed})`)
      if (last.epoch === position.epoch && position.offset <= last.offset) t.fail(`back from ${last.offset} to ${position.offset} (seed ${seed})`)
    }
    last = position
    told = false
  }
  if (new Set(data).size !== data.length) t.fail(`a message came twice (seed ${seed}): ${data.join()}`)
  return data
}

t.test('issue 8: for each misbehaviour of the broker, publications settle, nothing is thrown, and members get each message once, in order, or are told of gaps', async t => {
  const all: Partial<Misdeeds> = { delay: 0.3, double: 0.1, append: 0.1, reorder: 0.1, drop: 0.1, corrupt: 0.1, copy: 0.3, early: 0.2, throw: 0.05, reject: 0.05, mute: 0.05, garble: 0.05, flap: 0.05, reset: 0.03 }
  const plans: Partial<Misdeeds>[] = [{}, { delay: 0.5, copy: 1, early: 0.5 }, ...Object.entries(all).map(([name, often]) => ({ delay: 0.3, [name]: often * 2 })), all, all, all]
  for (const [index, misdeeds] of plans.entries()) {
    const { app, broker, url } = await create(t, misdeeds, {}, index + 1)
    const members = [await join(t, `${url}/rooms/news`), await join(t, `${url}/rooms/news`)]
    const raw = await connect(t, `${url}/rooms/news`, 'rooms.raw')
    const settled: Promise<unknown>[] = []
    for (let i = 0; i < 40; i++) {
      settled.push(app.rooms.broadcast('news', i))
      if (i % 10 === 5) members.push(await join(t, `${url}/rooms/news`))
      if (i % 4 === 0) await new Promise(resolve => setImmediate(resolve))
    }
    const acks = members[0]!.ask({ type: 'message', data: 'by a member' })
    t.ok((await Promise.all(settled)).length, 'each publication settles, and none rejects')
    t.equal(typeof (await acks).ok, 'boolean', 'the ack comes')
    await broker.settled()
    broker.misdeeds = {}
    // The last message reveals each gap before it.
    await app.rooms.broadcast('news', 'the end')
    await Promise.all(members.map(async member => { while ((await member.next('message')).data !== 'the end') { /* the next one */ } }))
    for (const member of members) checkMember(t, member, broker, index + 1)
    if (Object.keys(misdeeds).every(name => ['delay', 'copy', 'early'].includes(name))) {
      t.same(checkMember(t, members[0]!, broker, index + 1), [...Array(40).keys(), 'by a member', 'the end'], 'a broker that keeps its order loses nothing')
      t.equal(app.rooms.stats().losses, 0)
      await until(() => raw.received.length === 42)
    }
    t.same(broker.thrown, [], 'no handler throws')
    t.equal(app.rooms.stats().publishing, 0)
    await app.close()
  }
})

t.test('issue 8: all receivers are told of a loss that the broker reports, and no position is promised until the next entry', async t => {
  const { app, broker, url } = await create(t, {})
  const member = await join(t, `${url}/rooms/news`)
  const raw = await connect(t, `${url}/rooms/news`, 'rooms.raw')
  const other = await join(t, `${url}/rooms/sports`)
  const reader = app.rooms.subscribe('news')
  const { id } = await app.rooms.broadcast('news', 1)
  t.equal((await reader.next()).value, 1)
  t.ok((await join(t, `${url}/rooms/news?since=${id}`)).hello.recovered, 'the position before the loss is recovered')

  broker.handlers.lost(['news', 'never'])
  broker.handlers.lost(['news'])
  t.same(await member.next('gap'), { type: 'gap', reason: 'lost', from: id })
  t.same(await raw.closed, { code: 4202, reason: 'position_lost' }, 'raw mode reports a loss with a close')
  await t.rejects(reader.next(), { code: 'FST_ROOMS_MESSAGES_LOST' })
  const after = await join(t, `${url}/rooms/news?since=${id}`)
  t.equal(after.hello.recovered, false)
  t.equal(after.hello.id, undefined, 'the next position is unknown')
  const { id: next } = await app.rooms.broadcast('news', 2)
  let frame = await member.next()
  // The presence of the members that came meanwhile may be announced first.
  while (frame.type === 'presence') frame = await member.next()
  t.same(frame, { type: 'message', id: next, data: 2 }, 'one loss is told once')
  t.match((await join(t, `${url}/rooms/news?since=${next}`)).hello, { recovered: true, id: next }, 'positions from the next entry on are recovered')
  t.equal((await join(t, `${url}/rooms/news?since=${id}`)).hello.recovered, false)
  t.equal(app.rooms.stats().losses, 1)

  broker.handlers.lost('all')
  t.match([await member.next('gap'), await other.next('gap')], [{ type: 'gap', reason: 'lost' }, { type: 'gap', reason: 'lost' }])
  broker.handlers.lost(undefined as never)
  broker.handlers.lost({} as never)
  t.equal(app.rooms.stats().losses, 3)
  t.same(broker.thrown, [])
})

t.test('issue 8: a slow member is told of a loss when it has read', async t => {
  const { app, broker, url } = await create(t, {}, { slow: { policy: 'drop', bytes: 1_000 } })
  const slow = await join(t, `${url}/rooms/news`)
  slow.socket.pause()
  const text = 'x'.repeat(60_000)
  await until(async () => {
    await app.rooms.broadcast('news', text)
    return app.rooms.stats().lagging === 1
  })
  broker.handlers.lost('all')
  await app.rooms.broadcast('news', 'dropped')
  broker.handlers.lost('all')
  slow.socket.resume()
  await until(() => app.rooms.stats().lagging === 0)
  await app.rooms.broadcast('news', 'the end')
  while ((await slow.next('message')).data !== 'the end') { /* the next one */ }
  const gaps = framesOf(slow).filter((frame): frame is GapFrame => frame.type === 'gap')
  t.same(gaps.map(({ reason }) => reason).sort(), ['lost', 'slow'])
})

t.test('issue 8: a broker that loses its data and starts a new epoch is told as a reset, before the first message', async t => {
  const { app, broker, url } = await create(t, {})
  const member = await join(t, `${url}/rooms/news`)
  const raw = await connect(t, `${url}/rooms/news`, 'rooms.raw')
  await app.rooms.broadcast('news', 1)
  t.equal((await member.next('message')).data, 1)
  broker.misdeeds = { reset: 1 }
  const { id } = await app.rooms.broadcast('news', 2)
  t.same(await member.next(), { type: 'gap', reason: 'reset', to: id!.replace(/1$/, '0') })
  t.same(await member.next(), { type: 'message', id, data: 2 })
  t.match(await raw.closed, { code: 4202 })
  t.same(raw.received, ['1'])
})

t.test('issue 8: a publication without an outcome is unknown at its deadline: POST, acks and the close of the app end', async t => {
  const { app, broker, url } = await create(t, { mute: 1 })
  const member = await join(t, `${url}/rooms/news`)
  const post = fetch(`http://${url}/rooms/news`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: '1' }).then(async answer => answer.json())
  const ack = member.ask({ type: 'message', data: 2 })
  const result = app.rooms.broadcast('news', 3)
  await until(() => app.rooms.stats().publishing === 3)
  t.match(await result, { published: false, local: 1 }, 'its entry arrived nevertheless')
  t.match(await post, { published: false, local: 1 })
  t.match(await ack, { ok: false, error: { code: 'FST_ROOMS_BROKER_DOWN' } })
  t.match(app.rooms.stats(), { publishing: 0, unanswered: 3 })
  broker.close = () => new Promise(() => {})
  const left = app.rooms.broadcast('news', 4)
  await app.close()
  t.match(await left, { published: false })
  t.equal(app.rooms.stats().brokerFaults, 1, 'a broker that does not close is one fault, and does not hold the close')
})

t.test('issue 8: a broker that fails to close fails the close of the app', async t => {
  const { app, broker } = await create(t, {})
  broker.close = async () => { throw new Error('not closed') }
  await t.rejects(app.close(), { message: 'not closed' })
})

t.test('issue 8: local is right, and the echo precedes the ack, even if the outcome comes before the entry', async t => {
  const { app, broker, url } = await create(t, { early: 1, delay: 1, copy: 1 })
  const member = await join(t, `${url}/rooms/news`)
  const results = await Promise.all([1, 2, 3].map(async n => app.rooms.broadcast('news', n)))
  t.same(results.map(({ local }) => local), [1, 1, 1])
  t.match(await member.ask({ type: 'message', data: 4 }, 'mine'), { ok: true })
  const order = framesOf(member).flatMap(frame => frame.type === 'message' ? [frame.data] : frame.type === 'ack' ? ['ack'] : [])
  t.same(order, [1, 2, 3, 4, 'ack'])
  broker.misdeeds = { early: 1, drop: 1 }
  const { local, published } = await app.rooms.broadcast('news', 5)
  t.same({ local, published }, { local: 0, published: true }, 'an entry that never comes is awaited until the deadline')
  t.equal(app.rooms.stats().brokerFaults, 1)
  broker.misdeeds = { early: 1, delay: 1 }
  t.match(await app.rooms.broadcast('empty', 1), { local: 0, published: true }, 'the entry of a topic without receivers here is not awaited')
})

t.test('issue 8: an unreadable entry is counted, reported and told as a loss; the next one is delivered at once', async t => {
  const { app, broker, errors, url } = await create(t, {})
  const member = await join(t, `${url}/rooms/news`)
  const reader = app.rooms.subscribe('news')
  const json = '{"a":"ä"}'
  const good = { v: 1, uid: 'u', node: 'other', topic: 'news', tail: Buffer.from(`"data":${json},"from":"s1"}`), payloadLength: Buffer.byteLength(json), deadline: 0 } as const
  const bad: object[] = [
    { ...good, v: 2 },
    { ...good, v: Object.create(null) },
    { ...good, tail: undefined },
    { ...good, tail: '"data":1}' },
    { ...good, tail: Buffer.from('"data":1'), payloadLength: 1 },
    { ...good, tail: Buffer.from('"Data":1}'), payloadLength: 1 },
    { ...good, tail: Buffer.from('"data":1} '), payloadLength: 1 },
    { ...good, tail: Buffer.from('"data":1,"type":"bye"}'), payloadLength: 1 },
    { ...good, tail: Buffer.from('"data":1,"id":"x"}'), payloadLength: 1 },
    { ...good, tail: Buffer.from('"data":1,"data":2}'), payloadLength: 1 },
    { ...good, tail: Buffer.from('"data":1,"from"}'), payloadLength: 1 },
    { ...good, tail: Buffer.from('"data":1,}'), payloadLength: 1 },
    { ...good, tail: Buffer.from('"data":1 ,"from":"s1"}'), payloadLength: 1 },
    { ...good, tail: Buffer.from('"data":{broken}}'), payloadLength: 8 },
    { ...good, tail: Buffer.from([...Buffer.from('"data":"'), 0xff, ...Buffer.from('"}')]), payloadLength: 3 },
    { ...good, payloadLength: 0 },
    { ...good, payloadLength: 1.5 },
    { ...good, payloadLength: 1_000_000 },
    { ...good, uid: '' },
    { ...good, uid: 'x'.repeat(256) },
    { ...good, node: undefined },
    { ...good, topic: 'sports' },
    { ...good, except: 7 },
    { ...good, key: '' }
  ]
  for (const [index, entry] of bad.entries()) {
    broker.handlers.entry('news', { uid: `bad-${index}`, ...entry } as never)
    t.equal(app.rooms.stats().brokerFaults, index + 1, `refused: ${JSON.stringify(entry)}`)
    t.match(await member.next('gap'), { reason: 'lost' })
    broker.handlers.entry('news', { ...good, uid: `good-${index}` })
    t.same(await member.next(), { type: 'message', data: { a: 'ä' }, from: 's1' }, 'in the same turn, without another message')
  }
  await t.rejects(async () => { while ((await reader.next()).done !== true) { /* until it fails */ } }, { code: 'FST_ROOMS_MESSAGES_LOST' })
  t.match(errors[0], { code: 'FST_ROOMS_BROKER_FAULT', message: /"v" is 2/ })
  t.ok(errors.length < bad.length, 'not every fault is reported')
  for (const position of [{ epoch: 'short', offset: 1 }, { epoch: 'a-b-c-d-e-f-g-h', offset: 1 }, { epoch: 'abcdefghijkl', offset: -1 }, { epoch: 'abcdefghijkl', offset: 1e15 }, { epoch: 'abcdefghijkl', offset: '1' }, 7]) {
    broker.handlers.entry('news', { ...good, uid: `at-${JSON.stringify(position)}` }, position as never)
    t.match(await member.next('gap'), { reason: 'lost' })
    broker.handlers.entry('news', { ...good, uid: `after-${JSON.stringify(position)}` })
    await member.next('message')
  }
  broker.handlers.entry('news', { ...good, uid: 'bytes', tail: new Uint8Array(good.tail) as never }, null as never)
  t.same((await member.next('message')).data, { a: 'ä' }, 'a Uint8Array is accepted as bytes')
  t.same(broker.thrown, [])
})

t.test('issue 8: a subscriber that fails does not affect other receivers', async t => {
  const { app, url } = await create(t, {})
  const member = await join(t, `${url}/rooms/news`)
  const [one, two] = [app.rooms.subscribe('news'), app.rooms.subscribe('news')]
  const failing = one.next()
  Object.assign(one, { push: () => { throw new Error('no') } })
  await app.rooms.broadcast('news', 1)
  await t.rejects(failing, { message: 'no' })
  t.equal((await two.next()).value, 1)
  t.equal((await member.next('message')).data, 1)
})

t.test('issue 8: a repeated uid, or an older position, is not delivered, and the position never goes back', async t => {
  const { app, broker, url } = await create(t, {})
  const member = await join(t, `${url}/rooms/news`)
  const [epoch] = member.hello.id!.split('-') as [string]
  const entry = (uid: string, data: number, offset?: number): void => {
    const json = String(data)
    broker.handlers.entry('news', { v: 1, uid, node: 'other', topic: 'news', tail: Buffer.from(`"data":${json}}`), payloadLength: json.length, deadline: 0 }, offset === undefined ? undefined : { epoch, offset })
  }
  entry('a', 1, 1)
  entry('a', 1, 1)
  entry('a', 1, 2) // appended twice
  entry('b', 3, 3)
  entry('c', 2, 2)
  entry('d', 4, 4)
  t.same([(await member.next('message')).id, (await member.next('message')).id, (await member.next('message')).id], [`${epoch}-1`, `${epoch}-3`, `${epoch}-4`])
  t.equal((await join(t, `${url}/rooms/news?since=${epoch}-4`)).hello.recovered, true)
  t.match(app.rooms.stats(), { repeated: 3, losses: 1, brokerFaults: 1, deliveries: 3 }, 'an entry behind its successor is a fault, and told as a loss')
  for (let n = 0; n < 10_000; n++) entry(`n${n}`, n)
  entry('n9999', 1)
  t.match(app.rooms.stats(), { repeated: 4 })
  entry('n0', 1)
  t.match(app.rooms.stats(), { repeated: 4 }, 'a bounded number of uids is remembered')
})

t.test('offsets that a broker leaves out are no loss; what is not an offset before the entry is ignored', async t => {
  const { app, broker, url } = await create(t, {})
  const member = await join(t, `${url}/rooms/news`)
  const [epoch] = member.hello.id!.split('-') as [string]
  let entries = 0
  const entry = (offset: number, after: unknown): void => {
    broker.handlers.entry('news', { v: 1, uid: `u${++entries}`, node: 'other', topic: 'news', tail: Buffer.from('"data":1}'), payloadLength: 1, deadline: 0 }, { epoch, offset, after } as never)
  }
  entry(1, 0)
  entry(1_001, 1)
  t.equal((await member.next('message')).id, `${epoch}-1`)
  t.equal((await member.next('message')).id, `${epoch}-1001`)
  t.match(app.rooms.stats(), { losses: 0, deliveries: 2 })
  let offset = 1_001
  for (const after of [0.5, -1, 5_000, 'x', null]) entry(offset += 2, after)
  t.match(app.rooms.stats(), { losses: 5, deliveries: 7, brokerFaults: 0 })
})

t.test('issue 8: an attach that never settles ends joins with 4103', async t => {
  const { app, broker, url } = await create(t, {}, { limits: { handshake: 300 } })
  const { attach } = broker
  broker.attach = () => new Promise(() => {})
  const failed = t.rejects(app.rooms.subscribe('news').next(), { code: 'FST_ROOMS_BROKER_SILENT' })
  const clients = [await connect(t, `${url}/rooms/news`), await connect(t, `${url}/rooms/news`, 'rooms.raw')]
  for (const client of clients) t.match(await client.closed, { code: 4103 })
  await failed
  t.equal(app.rooms.stats().refusals.broker, 2)
  broker.attach = attach
  await join(t, `${url}/rooms/news`)
})

t.test('a join ends with 4103 if the attach of an in-process broker, which has no deadline of its own, never settles', async t => {
  const { broker, url } = await create(t, {}, { limits: { handshake: 300 } })
  Object.assign(broker, { inProcess: true, attach: () => new Promise(() => {}) })
  t.match(await (await connect(t, `${url}/rooms/news`)).closed, { code: 4103 })
})

t.test('issue 8: an attach with an invalid position refuses the join, because clients could not resume from it', async t => {
  const { broker, errors, url } = await create(t, {})
  const { attach } = broker
  for (const position of [{ epoch: 'e', offset: 0 }, { epoch: 'abcdefghijk_', offset: 0 }, { epoch: 'abcdefghijkl', offset: 0.5 }, 'x']) {
    broker.attach = async () => [position as never]
    t.match(await (await connect(t, `${url}/rooms/news`)).closed, { code: 4103 })
    t.match(errors.pop(), { code: 'FST_ROOMS_BROKER_FAULT' })
  }
  broker.attach = async () => undefined as never
  t.equal((await join(t, `${url}/rooms/plain`)).hello.id, undefined)
  broker.attach = attach
  t.ok((await join(t, `${url}/rooms/news`)).hello.id)
})

t.test('issue 8: a detach that throws synchronously is reported, and ends nothing', async t => {
  const { app, broker, errors, url } = await create(t, {})
  broker.detach = () => { throw new Error('at once') }
  const member = await join(t, `${url}/rooms/news`)
  await member.close()
  await until(() => errors.length === 1)
  t.match(errors, [{ message: 'at once' }])
  t.equal(app.rooms.stats().topics, 0)
  await join(t, `${url}/rooms/news`)
})

t.test('issue 8: state and position of an outcome are validated', async t => {
  const { app, broker } = await create(t, {})
  const { publish } = broker
  for (const answer of [undefined, null, 'ok', [], ['ok'], [{ state: 'fine' }], [null]]) {
    broker.publish = async () => answer as never
    t.match(await app.rooms.broadcast('news', 1), { published: false })
  }
  broker.publish = () => [{ state: 'ok', position: { epoch: 'e', offset: 1 } }]
  t.same(await app.rooms.broadcast('news', 1), { topic: 'news', local: 0, published: true })
  broker.publish = () => [{ state: 'ok', position: null as never }]
  t.same(await app.rooms.broadcast('news', 1), { topic: 'news', local: 0, published: true })
  t.equal(app.rooms.stats().brokerFaults, 8)
  broker.handlers.state('sideways' as never)
  t.equal(app.rooms.stats().brokerFaults, 9)
  t.equal(app.rooms.health().broker, 'up')
  broker.handlers.state('down', 'a string' as never)
  t.equal(app.rooms.health().broker, 'down')
  broker.publish = publish
})

t.test('issue 8: calls of a closed broker are ignored', async t => {
  const { app, broker, url } = await create(t, {})
  await join(t, `${url}/rooms/news`)
  await app.close()
  broker.handlers.state('down')
  broker.handlers.lost('all')
  broker.handlers.entry('news', null as never)
  t.match(app.rooms.stats(), { brokerFaults: 0, losses: 0 })
  t.equal(app.rooms.health().broker, 'up')
  t.same(broker.thrown, [])
})

/** An entry of another node. */
function foreign (uid: string, data: unknown): Publication {
  const json = JSON.stringify(data)
  return { v: 1, uid, node: 'other', topic: 'news', tail: Buffer.from(`"data":${json}}`), payloadLength: Buffer.byteLength(json), deadline: 0 }
}

const at = (offset: number, epoch = 'epoch00000001'): Position => ({ epoch, offset })

t.test('issue 8: a member that joins between a loss and the next entry is told of the next loss', async t => {
  const { app, broker, url } = await create(t, {})
  await join(t, `${url}/rooms/news`)
  broker.handlers.entry('news', foreign('a', 1), at(1))
  broker.handlers.lost(['news'])
  const late = await join(t, `${url}/rooms/news`)
  const raw = await connect(t, `${url}/rooms/news`, 'rooms.raw')
  await until(async () => await app.rooms.count('news', { local: true }) === 3)
  const failed = t.rejects(app.rooms.subscribe('news').next(), { code: 'FST_ROOMS_MESSAGES_LOST' })
  broker.handlers.entry('news', foreign('b', 5), at(5))
  t.match(await late.next('gap'), { reason: 'lost', to: 'epoch00000001-4' })
  t.equal((await late.next('message')).data, 5)
  t.equal((await raw.closed).code, 4202)
  await failed
})

t.test('issue 8: a publication whose room goes, or whose entry is lost, is not awaited, and is not a fault', async t => {
  const { app, broker, url } = await create(t, { early: 1, drop: 1 }, { limits: { publish: 5_000 } })
  const member = await join(t, `${url}/rooms/news`)
  const started = performance.now()
  const gone = app.rooms.broadcast('news', 1)
  await new Promise(resolve => setTimeout(resolve, 20))
  await member.close()
  t.match(await gone, { published: true, local: 0 })
  const again = await join(t, `${url}/rooms/news`)
  const epochs = [again.hello.id!.split('-')[0]!]
  const lost = app.rooms.broadcast('news', 2)
  await new Promise(resolve => setTimeout(resolve, 20))
  broker.handlers.lost('all')
  t.match(await lost, { published: true, local: 0 })
  const passed = app.rooms.broadcast('news', 3)
  await new Promise(resolve => setTimeout(resolve, 20))
  broker.handlers.entry('news', foreign('z', 9), at(9, epochs.at(-1)))
  t.match(await passed, { published: true, local: 0 })
  t.ok(performance.now() - started < 15_000)
  t.equal(app.rooms.stats().publishing, 0)
})

t.test('issue 8: a member that falls behind in the turn of a loss is told of the loss', async t => {
  for (const policy of ['drop', 'latest'] as const) {
    const { app, broker, url } = await create(t, {}, { slow: { policy, bytes: 1_000 } })
    const slow = await join(t, `${url}/rooms/news`)
    slow.socket.pause()
    const text = 'x'.repeat(60_000)
    let n = 0
    await until(async () => {
      broker.handlers.entry('news', foreign(`n${++n}`, text), at(n))
      await new Promise(resolve => setImmediate(resolve))
      return app.rooms.stats().queuedBytes > 0 || app.rooms.stats().lagging > 0
    })
    broker.handlers.lost('all')
    broker.handlers.entry('news', foreign('behind', text), at(n + 10))
    slow.socket.resume()
    await until(() => app.rooms.stats().lagging === 0 && app.rooms.stats().queuedBytes === 0)
    broker.handlers.entry('news', foreign('the end', 'the end'), at(n + 11))
    while ((await slow.next('message')).data !== 'the end') { /* the next one */ }
    t.ok(framesOf(slow).some(frame => frame.type === 'gap' && frame.reason === 'lost'), policy)
  }
})

t.test('issue 8: errors of a broker do not reach clients, and end nothing', async t => {
  const { app, broker, errors, url } = await create(t, {})
  for (const publish of [() => { throw new Error('the password is hunter2') }, async () => { throw new Error('the password is hunter2') }, () => [new Proxy({}, { get: () => { throw new Error('no') } })]] as (typeof broker.publish)[]) {
    broker.publish = publish
    app.rooms.broadcast('news', 1)
    const answer = await fetch(`http://${url}/rooms/news`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: '1' })
    t.equal(answer.status, 200)
    t.match(await answer.json(), { topic: 'news', local: 0, published: false, outcome: /^(none|unknown)$/ })
  }
  t.equal(app.rooms.stats().brokerFaults, 6)
  t.match(errors[0], { code: 'FST_ROOMS_BROKER_FAULT', cause: { message: 'the password is hunter2' } })
})

t.test('issue 8: a position object that the broker changes does no harm; a distant position and a forged uid are reported, and the topic goes on', async t => {
  const { app, broker, url } = await create(t, {})
  const reused = at(0)
  broker.attach = async () => [reused]
  const member = await join(t, `${url}/rooms/news`)
  for (const data of [1, 2, 3]) {
    reused.offset++
    broker.handlers.entry('news', foreign(`r${data}`, data), reused)
  }
  for (const data of [1, 2, 3]) t.equal((await member.next('message')).data, data)
  broker.handlers.entry('news', foreign('far', 4), at(1e14))
  t.match(await member.next('gap'), { count: 1e14 - 4 })
  broker.handlers.entry('news', foreign('back', 5), at(5))
  t.match(await member.next('gap'), { reason: 'lost' })
  t.equal(app.rooms.stats().brokerFaults, 1)

  broker.publish = async ([own]) => {
    broker.handlers.entry('news', { ...foreign('x', 'forged'), uid: own!.uid }, at(1e14 + 1))
    broker.handlers.entry('news', own!, at(1e14 + 1))
    return [{ state: 'ok' }]
  }
  t.match(await app.rooms.broadcast('news', 'mine'), { local: 1 })
  t.equal((await member.next('message')).data, 'mine')
  t.equal(app.rooms.stats().brokerFaults, 2)
})

t.test('issue 8: messages that the host publishes while members are told of a loss come after the message behind it', async t => {
  const { app, broker, url } = await create(t, {}, { onLeave: session => { session.rooms.broadcast('news', 'left') } })
  let offset = 1
  broker.publish = ([own]) => {
    broker.handlers.entry('news', own!, at(++offset))
    return [{ state: 'ok', position: at(offset) }]
  }
  const member = await join(t, `${url}/rooms/news`)
  const raw = await connect(t, `${url}/rooms/news`, 'rooms.raw')
  await until(async () => await app.rooms.count('news', { local: true }) === 2)
  broker.handlers.entry('news', foreign('a', 1), at(1))
  offset = 4
  broker.handlers.entry('news', foreign('b', 4), at(4))
  t.equal((await raw.closed).code, 4202)
  t.same([(await member.next('message')).data, (await member.next('gap')).type, (await member.next('message')).data, (await member.next('message')).data], [1, 'gap', 4, 'left'])
})

t.test('issue 8: handlers do not throw, for any arguments', async t => {
  const { app, broker, url } = await create(t, {})
  await join(t, `${url}/rooms/news`)
  const { proxy, revoke } = Proxy.revocable([], {})
  revoke()
  broker.handlers.entry('news', proxy as never)
  broker.handlers.entry('news', new Proxy({}, { getPrototypeOf: () => { throw new Error('no') } }) as never)
  broker.handlers.lost(proxy as never)
  broker.handlers.lost(new Proxy([], { get: () => { throw new Error('no') } }))
  let reads = 0
  const shifting = Object.defineProperty({ ...foreign('s', 1) }, 'tail', { get: () => Buffer.from(++reads === 1 ? '"data":1}' : 'x') })
  const reader = app.rooms.subscribe('news')
  broker.handlers.entry('news', shifting)
  t.equal((await reader.next()).value, 1, 'the validated bytes are the delivered ones')
  t.same(broker.thrown, [])
  t.ok(app.rooms.stats().brokerFaults >= 3)
})

t.test('issue 8: an entry behind a jump that has no valid frame is a fault and a loss', async t => {
  const { app, broker, url } = await create(t, {})
  const member = await join(t, `${url}/rooms/news`)
  broker.handlers.entry('news', foreign('a', 1), at(1))
  const { allocUnsafe } = Buffer
  let calls = 0
  Buffer.allocUnsafe = size => {
    if (++calls === 2) throw new RangeError('no memory')
    return allocUnsafe(size)
  }
  broker.handlers.entry('news', foreign('b', 4), at(4))
  Buffer.allocUnsafe = allocUnsafe
  broker.handlers.entry('news', foreign('c', 5), at(5))
  t.equal((await member.next('message')).data, 1)
  t.match(await member.next('gap'), { reason: 'lost', to: 'epoch00000001-3' })
  while ((await member.next('message')).data !== 5) { /* the next one */ }
  t.match(app.rooms.stats(), { brokerFaults: 1 })
  t.same(broker.thrown, [])
})

t.test('issue 8: an entry is dropped if the topic loses its last member while the entry is read', async t => {
  const { app, broker, url } = await create(t, {})
  const member = await join(t, `${url}/rooms/news`)
  const entry = foreign('a', 1)
  broker.handlers.entry('news', Object.defineProperty({ ...entry }, 'tail', {
    get () {
      app.rooms.kick({ topic: 'news' }).catch(t.threw)
      return entry.tail
    }
  }), at(1))
  t.match(await member.closed, { code: 4005 })
  t.equal(member.received.filter(text => text.includes('"message"')).length, 0)
  t.match(app.rooms.stats(), { brokerFaults: 0, deliveries: 0, topics: 0 })
  t.same(broker.thrown, [])
})
