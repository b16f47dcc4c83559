import t from 'tap'
import { until, type LogLine } from '../helpers/app.ts'
import { createFleet } from '../helpers/fleet-broker.ts'
import { turns } from '../helpers/turns.ts'

const topics = { chat: { publish: true } } as const

t.test('messages that cannot be read are counted and ignored, and logged once for each fault', async t => {
  const { nodes: [a, b] } = await createFleet(t, 2, { topics })
  const logs: LogLine[] = []
  b!.app.log.warn = ((fields: object, msg: string) => { logs.push({ level: 40, msg, ...fields }) }) as never
  const ben = await b!.join('chat', 'ben')
  const bad = ['', 'no JSON', '[]', '{"v":2,"type":"kick"}', '{"v":1,"type":"later"}', '{"v":1,"type":"kick","code":4005,"reason":"x"}', `{"v":1,"type":"send","id":1,"session":"${ben.session}","wait":5}`, '{"v":3}']
  for (const bytes of bad) b!.broker.bring(a!.broker.id, bytes)
  await until(() => b!.rooms.stats().unreadable === bad.length)
  t.match(logs.map(({ fault }) => fault), ['form', 'version', 'type'])
  t.match(logs[1], { node: a!.broker.id, detail: '"v" is 2, and this node reads 1' })
  await a!.rooms.send(ben.session, 1)
  t.match(await ben.next('direct'), { data: 1 }, 'the node goes on')
  t.equal(b!.rooms.stats().brokerFaults, 0)
})

t.test('a request to a node of another version, which ignores it, ends at its deadline', async t => {
  const { exchange, nodes: [a, b] } = await createFleet(t, 2, { topics, limits: { publish: 150 } })
  const ben = await b!.join('chat', 'ben')
  const { control } = b!.broker.handlers
  b!.broker.handlers.control = (fromNode, bytes) => { control(fromNode, Buffer.from(bytes.toString().replace('{"v":1', '{"v":2'))) }
  await t.rejects(a!.rooms.send(ben.session, 1), { code: 'FST_ROOMS_BROKER_DOWN' })
  await t.rejects(a!.rooms.kick({ session: ben.session }), { code: 'FST_ROOMS_BROKER_DOWN' })
  await t.rejects(a!.rooms.ask(ben.session, 1, { timeout: 30 }), { code: 'FST_ROOMS_ASK_TIMEOUT' })
  t.same(await a!.rooms.sendToUser('ben', 1), { local: 0, published: true })
  t.ok(b!.rooms.stats().unreadable >= 3)
  t.equal(exchange.sent.some(({ from }) => from === b!.broker.id), false)
})

t.test('a cut in the middle of a request, and before it', async t => {
  const { nodes: [a, b] } = await createFleet(t, 2, { topics })
  const [ann, ben] = [await a!.join('chat', 'ann'), await b!.join('chat', 'ben')]
  await turns(3)
  const asked = a!.rooms.ask(ben.session, 'ready?', { timeout: 60 })
  const { ref } = await ben.next('direct')
  a!.broker.cut()
  ben.send({ type: 'ack', ref, data: 'yes' })
  await t.rejects(asked, { code: 'FST_ROOMS_ASK_TIMEOUT' }, 'the answer is lost, and the question was sent')
  t.same(await a!.rooms.sendToUser('ann', 1), { local: 1, published: false })
  t.match(await ann.next('direct'), { data: 1 })
  for (const call of [() => a!.rooms.send(ben.session, 1), () => a!.rooms.ask(ben.session, 1), () => a!.rooms.kick({ session: ben.session }), () => a!.rooms.kick({ user: 'nobody' }), () => a!.rooms.reauthorize({ session: ben.session }), () => a!.rooms.reauthorize({ topic: 'chat' })]) {
    await t.rejects(call(), { code: 'FST_ROOMS_BROKER_DOWN' })
  }
  await t.rejects(a!.rooms.kick({ topic: 'chat' }), { code: 'FST_ROOMS_BROKER_DOWN' })
  t.equal((await ann.closed).code, 4005, 'the part of this node is done')
  t.equal(a!.rooms.stats().errors, 0)
  a!.broker.heal()
  await a!.rooms.send(ben.session, 2)
  t.match(await ben.next('direct'), { data: 2 })
})

t.test('a broker that does not answer is given up at the deadline', async t => {
  const { nodes: [a, b] } = await createFleet(t, 2, { topics, limits: { publish: 100 } })
  const ben = await b!.join('chat', 'ben')
  a!.broker.isSilent = true
  t.same(await a!.rooms.sendToUser('ben', 1), { local: 0, published: false })
  await t.rejects(a!.rooms.kick({ user: 'ben' }), { code: 'FST_ROOMS_BROKER_DOWN' })
  await t.rejects(a!.rooms.ask(ben.session, 1, { timeout: 20 }), { code: 'FST_ROOMS_BROKER_DOWN' })
  t.ok(a!.rooms.stats().unanswered >= 2)
})

t.test('breaches of the contract of control and hold are faults, and nothing else is lost', async t => {
  const errors: Error[] = []
  const { nodes: [a, b] } = await createFleet(t, 2, { topics, onError: error => { errors.push(error) } })
  const ben = await b!.join('chat', 'ben')
  const { broker } = a!
  const control = broker.control.bind(broker)
  const calls: (() => any)[] = [() => { throw new Error('thrown') }, () => Promise.reject(new Error('rejected')), async () => 'perhaps', async () => null]
  for (const call of calls) {
    broker.control = call
    t.same(await a!.rooms.sendToUser('ben', 1), { local: 0, published: false })
  }
  broker.control = (() => 'sent') as never
  t.same(await a!.rooms.sendToUser('ben', 1), { local: 0, published: true }, 'an outcome that is not a promise is taken')
  broker.control = control
  t.equal(a!.rooms.stats().brokerFaults, 4)
  for (const [fromNode, bytes] of [[broker.id, Buffer.from('{}')], ['', Buffer.from('{}')], [7, Buffer.from('{}')], ['other', 'text'], ['other', null]] as const) broker.handlers.control(fromNode as never, bytes as never)
  t.equal(a!.rooms.stats().brokerFaults, 9)
  t.equal(a!.rooms.stats().unreadable, 0)
  Object.assign(broker, { hold: () => { throw new Error('hold') } })
  await a!.join('chat', 'cleo')
  await until(() => a!.rooms.stats().brokerFaults === 10)
  t.match(errors[0], { code: 'FST_ROOMS_BROKER_FAULT', message: /control threw or rejected/ })
  await a!.rooms.send(ben.session, 2)
  t.match(await ben.next('direct'), { data: 2 })
})

t.test('a hook that fails for another node is told to the host of its own', async t => {
  const errors: Error[] = []
  const { nodes: [a, b] } = await createFleet(t, 2, {
    topics,
    authorize: (context: any) => {
      if (context.action === 'stay') throw new Error('of the host')
      return true
    },
    onError: error => { errors.push(error) }
  })
  const ben = await b!.join('chat', 'ben')
  t.equal(await a!.rooms.reauthorize({ user: 'ben' }), 0)
  t.equal((await ben.closed).code, 1011)
  t.match(errors, [{ message: 'of the host' }])
  const deep = `${'['.repeat(100_000)}${']'.repeat(100_000)}`
  b!.broker.bring(a!.broker.id, `{"v":1,"type":"direct","user":"ben","topic":"chat","from":{"id":"s"},"data":${deep}}`)
  await until(() => errors.length === 2 || b!.rooms.stats().unreadable === 1)
})

t.test('an end that the broker does not take, of a producer that another node stops, is told to the host of the producer', async t => {
  const errors: Error[] = []
  const { nodes: [a, b] } = await createFleet(t, 2, { topics: { 'run:*': { stream: true } }, onError: error => { errors.push(error) } })
  const run = await a!.rooms.stream('run:1')
  a!.broker.publish = async () => [{ state: 'failed' }]
  a!.broker.bring(b!.broker.id, '{"v":1,"type":"stop","topic":"run:1"}')
  await until(() => errors.length === 1)
  t.match(errors, [{ code: 'FST_ROOMS_BROKER_DOWN' }])
  t.ok(run.signal.aborted)
})

t.test('requests end when the node closes, and nothing is taken or sent after that', async t => {
  const { exchange, nodes: [a, b] } = await createFleet(t, 2, { topics })
  const ben = await b!.join('chat', 'ben')
  const asked = a!.rooms.ask(ben.session, 1)
  await ben.next('direct')
  const { handlers } = a!.broker
  const rejected = t.rejects(asked, { code: 'FST_ROOMS_CLOSED' })
  await a!.join('chat', 'ann')
  await a!.app.close()
  await rejected
  const before = exchange.sent.length
  handlers.control(b!.broker.id, Buffer.from('no JSON'))
  t.equal(a!.rooms.stats().unreadable, 0)
  t.same(await a!.rooms.sendToUser('ben', 1), { local: 0, published: false })
  await t.rejects(a!.rooms.send(ben.session, 1), { code: 'FST_ROOMS_CLOSED' })
  t.equal(exchange.sent.length, before)
})
