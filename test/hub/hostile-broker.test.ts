import t, { type Test } from 'tap'
import type { GapFrame, ServerFrame } from '../../types/index.ts'
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

/** What a member got is in order, each message once, and before each hole it was told. Returns the data that it got. */
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
      if (!isNext && !told) t.fail(`a hole that nobody told of: ${JSON.stringify(last)}, ${frame.id} (seed ${seed})`)
      if (last.epoch === position.epoch && position.offset <= last.offset) t.fail(`back from ${last.offset} to ${position.offset} (seed ${seed})`)
    }
    last = position
    told = false
  }
  if (new Set(data).size !== data.length) t.fail(`a message came twice (seed ${seed}): ${data.join()}`)
  return data
}

t.test('issue 8: whatever the broker does, each publication settles, nothing is thrown, and members get each message once, in order, or are told', async t => {
  const all: Partial<Misdeeds> = { delay: 0.3, double: 0.1, append: 0.1, reorder: 0.1, drop: 0.1, corrupt: 0.1, copy: 0.3, early: 0.2, throw: 0.05, reject: 0.05, mute: 0.05, garble: 0.05, flap: 0.05, reset: 0.03 }
  const plans: Partial<Misdeeds>[] = [{}, { delay: 0.5, copy: 1, early: 0.5 }, ...Object.entries(all).map(([name, often]) => ({ delay: 0.3, [name]: often * 2 })), all, all, all]
  for (const [index, misdeeds] of plans.entries()) {
    const { app, broker, url } = await create(t, misdeeds, {}, index + 1)
    const members = [await join(t, `${url}/rooms/news`), await join(t, `${url}/rooms/news`)]
    const raw = await connect(t, `${url}/rooms/news`, 'rooms.raw')
    const settled: Promise<unknown>[] = []
    for (let i = 0; i < 40; i++) {
      settled.push(app.rooms.broadcast('news', i).then(({ local, published }) => ({ local, published }), error => error.message))
      if (i % 10 === 5) members.push(await join(t, `${url}/rooms/news`))
      if (i % 4 === 0) await new Promise(resolve => setImmediate(resolve))
    }
    const acks = members[0]!.ask({ type: 'message', data: 'by a member' })
    const results = await Promise.all(settled)
    t.ok(results.every(result => typeof result === 'string' ? /^(?:thrown|rejected) by publish$/.test(result) : true), 'only what publish itself throws is thrown')
    t.equal(typeof (await acks).ok, 'boolean', 'the ack comes')
    await broker.settled()
    broker.misdeeds = {}
    // The last message shows each hole before it.
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

t.test('issue 8: what the broker says is lost is told to all who receive, and no position is promised until the next entry', async t => {
  const { app, broker, url } = await create(t, {})
  const member = await join(t, `${url}/rooms/news`)
  const raw = await connect(t, `${url}/rooms/news`, 'rooms.raw')
  const other = await join(t, `${url}/rooms/sports`)
  const reader = app.rooms.subscribe('news')
  const { id } = await app.rooms.broadcast('news', 1)
  t.equal((await reader.next()).value, 1)
  t.ok((await join(t, `${url}/rooms/news?since=${id}`)).hello.recovered, 'before it the position is good')

  broker.handlers.lost(['news', 'never'])
  t.same(await member.next('gap'), { type: 'gap', reason: 'lost', from: id })
  t.same(await raw.closed, { code: 4202, reason: 'position_lost' }, 'raw mode has no other word for it')
  await t.rejects(reader.next(), { code: 'FST_ROOMS_MESSAGES_LOST' })
  const after = await join(t, `${url}/rooms/news?since=${id}`)
  t.equal(after.hello.recovered, false)
  t.equal(after.hello.id, undefined, 'what follows is not known')
  broker.handlers.lost(['news'])
  const { id: next } = await app.rooms.broadcast('news', 2)
  t.same(await member.next(), { type: 'message', id: next, data: 2 }, 'the same loss is told once')
  t.match((await join(t, `${url}/rooms/news?since=${next}`)).hello, { recovered: true, id: next }, 'from the next entry on positions are good')
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

t.test('issue 8: a broker that loses its data and counts anew is told as a reset, before the first message', async t => {
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

t.test('issue 8: a publication that is never answered is unknown at its deadline: POST, acks and the close of the app end', async t => {
  const { app, broker, url } = await create(t, { mute: 1 })
  const member = await join(t, `${url}/rooms/news`)
  const post = fetch(`http://${url}/rooms/news`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: '1' }).then(async answer => answer.json())
  const ack = member.ask({ type: 'message', data: 2 })
  const result = app.rooms.broadcast('news', 3)
  await until(() => app.rooms.stats().publishing === 3)
  t.match(await result, { published: false, local: 1 }, 'its entry came all the same')
  t.match(await post, { published: false, local: 1 })
  t.match(await ack, { ok: false, error: { code: 'FST_ROOMS_BROKER_DOWN' } })
  t.match(app.rooms.stats(), { publishing: 0, unanswered: 3 })
  broker.close = () => new Promise(() => {})
  const left = app.rooms.broadcast('news', 4)
  await app.close()
  t.match(await left, { published: false })
  t.equal(app.rooms.stats().brokerFaults, 1, 'nor does a broker that does not close')
})

t.test('issue 8: a broker that fails to close fails the close of the app', async t => {
  const { app, broker } = await create(t, {})
  broker.close = async () => { throw new Error('not closed') }
  await t.rejects(app.close(), { message: 'not closed' })
})

t.test('issue 8: local counts, and the echo precedes the ack, though the broker answers before its entry', async t => {
  const { app, broker, url } = await create(t, { early: 1, delay: 1, copy: 1 })
  const member = await join(t, `${url}/rooms/news`)
  const results = await Promise.all([1, 2, 3].map(async n => app.rooms.broadcast('news', n)))
  t.same(results.map(({ local }) => local), [1, 1, 1])
  t.match(await member.ask({ type: 'message', data: 4 }, 'mine'), { ok: true })
  const order = framesOf(member).flatMap(frame => frame.type === 'message' ? [frame.data] : frame.type === 'ack' ? ['ack'] : [])
  t.same(order, [1, 2, 3, 4, 'ack'])
  broker.misdeeds = { early: 1, drop: 1 }
  const { local, published } = await app.rooms.broadcast('news', 5)
  t.same({ local, published }, { local: 0, published: true }, 'an entry that never comes is waited for until the deadline')
  t.equal(app.rooms.stats().brokerFaults, 1)
  broker.misdeeds = { early: 1, delay: 1 }
  t.match(await app.rooms.broadcast('empty', 1), { local: 0, published: true }, 'a topic that has nobody here is not waited for')
})

t.test('issue 8: an entry that cannot be read is counted, reported and told as a loss; the next one arrives at once', async t => {
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
  t.ok(errors.length < bad.length, 'not each is reported')
  for (const position of [{ epoch: 'short', offset: 1 }, { epoch: 'a-b-c-d-e-f-g-h', offset: 1 }, { epoch: 'abcdefghijkl', offset: -1 }, { epoch: 'abcdefghijkl', offset: 1e15 }, { epoch: 'abcdefghijkl', offset: '1' }, 7]) {
    broker.handlers.entry('news', { ...good, uid: `at-${JSON.stringify(position)}` }, position as never)
    t.match(await member.next('gap'), { reason: 'lost' })
    broker.handlers.entry('news', { ...good, uid: `after-${JSON.stringify(position)}` })
    await member.next('message')
  }
  broker.handlers.entry('news', { ...good, uid: 'bytes', tail: new Uint8Array(good.tail) as never }, null as never)
  t.same((await member.next('message')).data, { a: 'ä' }, 'a Uint8Array is bytes')
  t.same(broker.thrown, [])
})

t.test('issue 8: a subscriber that fails ends alone', async t => {
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

t.test('issue 8: the same uid, or an older position, is not delivered again, and the position never goes back', async t => {
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
  t.match(app.rooms.stats(), { repeated: 3, losses: 0, deliveries: 3 })
  for (let n = 0; n < 10_000; n++) entry(`n${n}`, n)
  entry('n9999', 1)
  t.match(app.rooms.stats(), { repeated: 4 })
  entry('n0', 1)
  t.match(app.rooms.stats(), { repeated: 4 }, 'so many are remembered, and no more')
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

t.test('issue 8: an attach at what is not a position refuses the join, since no client could come back with it', async t => {
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

t.test('issue 8: a detach that throws at once is reported, and ends nothing', async t => {
  const { app, broker, errors, url } = await create(t, {})
  broker.detach = () => { throw new Error('at once') }
  const member = await join(t, `${url}/rooms/news`)
  await member.close()
  await until(() => errors.length === 1)
  t.match(errors, [{ message: 'at once' }])
  t.equal(app.rooms.stats().topics, 0)
  await join(t, `${url}/rooms/news`)
})

t.test('issue 8: what the broker answers to a publication is checked, its state and its position', async t => {
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

t.test('issue 8: a broker that has been closed is not heard any more', async t => {
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
