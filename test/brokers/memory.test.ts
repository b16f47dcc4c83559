import t from 'tap'
import { memoryBroker } from '../../lib/index.ts'
import { brokerSuite, positionSuite, publication, startBroker } from './suite.ts'

brokerSuite(t, memoryBroker)
positionSuite(t, memoryBroker)

t.test('the memory broker says what it can do', async t => {
  t.same(memoryBroker().capabilities, { order: 'total', history: false, presence: false, once: 'shared' })
})

t.test('publishing is synchronous, and the same object arrives', async t => {
  const { broker, entries } = await startBroker(t, memoryBroker())
  await broker.attach(['a'])
  const one = publication('a')
  const outcomes = broker.publish([one])
  t.ok(Array.isArray(outcomes), 'there is no promise')
  t.equal(entries[0]!.publication, one, 'and no copy')
})

t.test('a topic that was detached begins again with a new epoch', async t => {
  const { broker } = await startBroker(t, memoryBroker())
  const [first] = await broker.attach(['a'])
  await broker.publish([publication('a')])
  await broker.detach(['a'])
  const [second] = await broker.attach(['a'])
  t.not(second!.epoch, first!.epoch)
  t.equal(second!.offset, 0)
})

t.test('a publication to nobody has no position', async t => {
  const { broker } = await startBroker(t, memoryBroker())
  t.same(await broker.publish([publication('a')]), [{ state: 'ok' }])
})

t.test('in one process nobody else can be told anything', async t => {
  const { broker } = await startBroker(t, memoryBroker())
  t.equal(await broker.control('*', Buffer.from('x')), 'gone')
})

t.test('what is attached after the close reaches nobody, and does not throw', async t => {
  const { broker, entries } = await startBroker(t, memoryBroker())
  await broker.close()
  await broker.attach(['a'])
  t.match(await broker.publish([publication('a')]), [{ state: 'ok' }])
  t.same(entries, [])
})
