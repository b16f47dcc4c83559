import t from 'tap'
import { until } from '../helpers/app.ts'
import { createFleet } from '../helpers/fleet-broker.ts'
import { turns } from '../helpers/turns.ts'

t.test('a session that a broadcast leaves out may be on any node', async t => {
  const { nodes: [a, b] } = await createFleet(t, 2, { topics: { chat: { publish: true } } })
  const [ann, ben, cleo] = [await a!.join('chat'), await b!.join('chat'), await b!.join('chat')]
  t.match(await a!.rooms.broadcast('chat', 1, { except: ben.session }), { local: 1, published: true })
  t.match(await b!.rooms.broadcast('chat', 2, { except: ann.session }), { local: 2, published: true })
  t.match([await ann.next('message'), await cleo.next('message'), await cleo.next('message'), await ben.next('message')], [{ data: 1 }, { data: 1 }, { data: 2 }, { data: 2 }])
  await t.rejects(ann.next({ timeout: 30 }), { code: 'FST_ROOMS_INJECT_TIMEOUT' })
})

t.test('a mid that was accepted on one node is known on the others: of members, the host, and requests', async t => {
  const { exchange, nodes: [a, b] } = await createFleet(t, 2, { topics: { chat: { publish: true, post: true } }, authorize: () => true })
  const [annA, annB, benB] = [await a!.join('chat', 'ann'), await b!.join('chat', 'ann'), await b!.join('chat', 'ben')]
  const publish = async (client: typeof annA, mid: string) => {
    client.send({ type: 'message', data: 'x', mid, ref: mid })
    return client.next('ack')
  }
  const first: any = await publish(annA, 'one')
  t.match(first, { ok: true, id: String, duplicate: undefined })
  t.match(await publish(annB, 'one'), { ok: true, id: first.id, duplicate: true })
  t.match(await publish(annB, 'one'), { ok: true, id: first.id, duplicate: true }, 'this node has remembered the answer')
  t.match(await publish(benB, 'one'), { ok: true, duplicate: undefined }, 'another user has mids of its own')

  const mid = 'm'.repeat(16)
  const sent = await a!.rooms.broadcast('chat', 'h', { mid })
  t.match(await b!.rooms.broadcast('chat', 'h', { mid }), { id: sent.id!, published: true, duplicate: true })
  const post = (node: typeof a) => node!.app.inject({ method: 'POST', url: '/rooms/chat', payload: '"p"', headers: { 'content-type': 'application/json', 'idempotency-key': mid, 'x-user': 'u'.repeat(255) } })
  const posted = (await post(a)).json()
  t.match(posted, { published: true, id: String })
  t.match((await post(b)).json(), { id: posted.id, duplicate: true })
  t.same(exchange.publications.map(({ mid }) => mid), ['u3 annone', 'u3 benone', `h${mid}`, `u255 ${'u'.repeat(255)}${mid}`])
  t.equal(b!.rooms.stats().duplicates, 4)
  await b!.rooms.broadcast('chat', 'without')
  t.notOk('mid' in exchange.publications.at(-1)!)
})

const streams = { 'run:*': { stream: true } } as const

t.test('stop reaches a producer on another node: its signal is aborted, and all readers get one end', async t => {
  const { nodes: [a, b, c] } = await createFleet(t, 3, { topics: streams })
  const run = await a!.rooms.stream('run:1')
  const readers = await Promise.all([a!, b!, c!].map(node => node.join('run:1')))
  await run.write('x')
  for (const reader of readers) t.match(await reader.next('message'), { data: 'x' })
  t.equal(await b!.rooms.stop('run:1'), true)
  await until(() => run.signal.aborted)
  t.match(run.signal.reason, { name: 'AbortError', message: 'stream "run:1" was stopped' })
  for (const reader of readers) {
    t.match(await reader.next('end'), { reason: 'stopped' })
    t.equal((await reader.closed).code, 1000)
  }
  t.match(await run.end(), { topic: 'run:1', reason: 'stopped' })
  await t.rejects(run.write('y'), { code: 'FST_ROOMS_STREAM_ENDED' })
  for (const { rooms } of [a!, b!, c!]) t.equal(await rooms.stop('run:1'), false, 'it has ended')
  t.match(await c!.rooms.history('run:1'), { messages: [{ data: 'x' }], ended: { reason: 'stopped' } })
  await t.rejects(b!.rooms.stop('chat' as never), { code: 'FST_ROOMS_NO_SUCH_TOPIC' })
})

t.test('stop ends a stream whose producer has gone with its node, and not one that has not begun', async t => {
  const { nodes: [a, b] } = await createFleet(t, 2, { topics: streams })
  const run = await a!.rooms.stream('run:1')
  await run.write('x')
  a!.broker.cut() // the end that it publishes when it closes is lost
  await a!.app.close()
  const reader = await b!.join('run:1')
  t.equal(await b!.rooms.stop('run:1'), true)
  t.match(await reader.next('end'), { reason: 'stopped' })

  t.equal(await b!.rooms.stop('run:2'), false)
  const later = await b!.rooms.stream('run:2')
  t.match(await later.end(), { reason: 'done' })
})

t.test('stop reaches a producer on another node that has written nothing', async t => {
  const { nodes: [a, b] } = await createFleet(t, 2, { topics: streams })
  const run = await a!.rooms.stream('run:1')
  t.equal(await b!.rooms.stop('run:1'), false)
  await until(() => run.signal.aborted)
  t.match(await run.end(), { reason: 'stopped', id: String })
})

t.test('a producer that is stopped here, is ending, or ends while it is stopped elsewhere', async t => {
  const { nodes: [a, b] } = await createFleet(t, 2, { topics: streams })
  const own = await a!.rooms.stream('run:1')
  t.equal(await a!.rooms.stop('run:1'), true)
  t.match(await own.end(), { reason: 'stopped' })
  const ending = await a!.rooms.stream('run:2')
  const ended = ending.end()
  t.equal(await a!.rooms.stop('run:2'), false)
  t.match(await ended, { reason: 'done' })

  const racing = await a!.rooms.stream('run:3')
  await racing.write(1)
  const stopped = b!.rooms.stop('run:3')
  await turns(1)
  const end = racing.end()
  t.equal(await stopped, true)
  t.match(await end, { reason: /^(done|stopped|lost)$/ })
})

t.test('stop rejects if the broker does not take it', async t => {
  const { nodes: [a, b] } = await createFleet(t, 2, { topics: streams })
  const run = await a!.rooms.stream('run:1')
  await run.write('x')
  b!.broker.cut()
  await t.rejects(b!.rooms.stop('run:1'), { code: 'FST_ROOMS_BROKER_DOWN' })
  await t.rejects(b!.rooms.stop('run:2'), { code: 'FST_ROOMS_BROKER_DOWN' })
  t.notOk(run.signal.aborted)
})
