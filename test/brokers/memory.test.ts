import t from 'tap'
import { memoryBroker } from '../../lib/index.ts'
import { brokerConformance } from '../../lib/conformance/index.ts'
import type { HistoryPage } from '../../types/index.ts'
import { publication, startBroker } from './start.ts'

const report = await brokerConformance({ test: (name, run) => t.test(name, async () => run()) }, () => ({ broker: () => memoryBroker() }), { nodes: 1 })

t.test('of the suite, the memory broker runs all but the cases of several nodes', async t => {
  t.ok(report.cases.length > 20)
  for (const { name, reason } of report.omitted) t.match(reason, /second node|presence|streams|hold|stats|cut/, name)
})

t.test('the memory broker declares its capabilities', async t => {
  t.same(memoryBroker().capabilities, { order: 'total', history: true, presence: true, once: 'shared' })
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
  const named = { ...publication('a'), mid: 'm' }
  t.same(await broker.publish([named, named]), [{ state: 'ok' }, { state: 'duplicate' }])
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

t.test('positions of topics without members and messages are bounded in number, and reading a topic takes no place among them', async t => {
  const { broker } = await startBroker(t, memoryBroker())
  const retention = { size: 1, bytes: 1, ttl: 1, latest: false }
  const read = (topic: string): HistoryPage => broker.history!(topic, { limit: 1, bytes: 1, retention }) as HistoryPage
  const begin = async (topic: string): Promise<void> => {
    await broker.publish([{ ...publication(topic), retention }]) // is over the bound, so that only its position stays
    await broker.attach([topic], retention)
    await broker.detach([topic])
  }
  await begin('first')
  const first = read('first')
  t.match(first, { position: { offset: 1 }, messages: [], from: 1 })
  const invented = read('invented')
  t.match(invented, { position: { offset: 0 }, messages: [], from: 0 })
  for (let n = 0; n < 100_000; n++) {
    const topic = `t${n}`
    read(topic)
    if (n % 10 > 0) continue
    await broker.attach([topic], retention)
    await broker.detach([topic])
  }
  t.same(read('first'), first, 'nor does a topic without a publication')
  await begin('invented')
  t.same(read('invented').position, { epoch: invented.position.epoch, offset: 1 }, 'the position that was read continues')
  for (let n = 0; n < 100_000; n++) await begin(`t${n}`)
  await new Promise(resolve => setTimeout(resolve, 1_200)) // until the next sweep
  t.match(read('first').position, { offset: 0 })
  t.not(read('first').position.epoch, first.position.epoch, 'a position that was forgotten is never given again')
})

t.test('values count 320 bytes each, and two for each character of their keys, besides their tails', async t => {
  const { broker } = await startBroker(t, memoryBroker())
  const retention = { size: Infinity, bytes: 1_000, ttl: 60_000, latest: true }
  const keys = async (key: string, payload: unknown): Promise<unknown[]> => {
    await broker.publish([{ ...publication('a', payload), key, retention }])
    return (await broker.history!('a', { limit: 10, bytes: 10_000, retention })).messages.map(({ key }) => key)
  }
  t.same(await keys('a', 1), ['a'])
  t.same(await keys('b', 1), ['a', 'b'])
  t.same(await keys('c', 'xxxxxxxxxxx'), ['b', 'c'])
  t.same(await keys('d', 'x'.repeat(1_000)), [], 'one that is over the bound alone')
})
