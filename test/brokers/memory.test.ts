import t from 'tap'
import { memoryBroker } from '../../lib/index.ts'
import type { HistoryPage } from '../../types/index.ts'
import { brokerSuite, historySuite, positionSuite, publication, startBroker } from './suite.ts'

brokerSuite(t, memoryBroker)
positionSuite(t, memoryBroker)
historySuite(t, memoryBroker)

t.test('the memory broker declares its capabilities', async t => {
  t.same(memoryBroker().capabilities, { order: 'total', history: true, presence: false, once: 'shared' })
})

t.test('publish is synchronous, and delivers the same object', async t => {
  const { broker, entries } = await startBroker(t, memoryBroker())
  await broker.attach(['a'])
  const one = publication('a')
  const outcomes = broker.publish([one])
  t.ok(Array.isArray(outcomes), 'publish returns no promise')
  t.equal(entries[0]!.publication, one, 'the entry is not a copy')
})

t.test('a detached topic starts again with a new epoch', async t => {
  const { broker } = await startBroker(t, memoryBroker())
  const [first] = await broker.attach(['a'])
  await broker.publish([publication('a')])
  await broker.detach(['a'])
  const [second] = await broker.attach(['a'])
  t.not(second!.epoch, first!.epoch)
  t.equal(second!.offset, 0)
})

t.test('a publication without receivers has no position', async t => {
  const { broker } = await startBroker(t, memoryBroker())
  t.same(await broker.publish([publication('a')]), [{ state: 'ok' }])
})

t.test('a control message has no receivers, because there is one process', async t => {
  const { broker } = await startBroker(t, memoryBroker())
  t.equal(await broker.control('*', Buffer.from('x')), 'gone')
})

t.test('a topic attached after the close delivers nothing, and attach does not throw', async t => {
  const { broker, entries } = await startBroker(t, memoryBroker())
  await broker.close()
  await broker.attach(['a'])
  t.match(await broker.publish([publication('a')]), [{ state: 'ok' }])
  t.same(entries, [])
})

t.test('positions of topics without members and messages are bounded in number', async t => {
  const { broker } = await startBroker(t, memoryBroker())
  const retention = { size: 1, bytes: 1_000, ttl: 1_000, latest: false }
  const epoch = (topic: string): string => (broker.history!(topic, { limit: 1, bytes: 1, retention }) as HistoryPage).position.epoch
  const first = epoch('first')
  t.equal(epoch('first'), first)
  for (let n = 0; n < 100_000; n++) epoch(`t${n}`)
  t.not(epoch('first'), first)
})
