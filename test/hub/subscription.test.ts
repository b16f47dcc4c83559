import t from 'tap'
import { Delivery, Outgoing } from '../../lib/hub/fan-out/delivery.ts'
import { Subscription } from '../../lib/hub/subscription.ts'
import { tailEnd } from '../../lib/protocol/frames.ts'

function create (bound = 3) {
  let detached = 0
  const subscription = new Subscription('news', bound, () => { detached++ })
  const push = (payload: unknown): void => {
    const publication = new Outgoing({ uid: 'u', node: 'n', topic: 'news', deadline: 0 }, JSON.stringify(payload), tailEnd('session-1', 'anna'))
    subscription.push(new Delivery(publication, undefined, true))
  }
  return { subscription, push, detached: () => detached }
}

const end = { done: true, value: undefined }

t.test('messages wait in order for a reader, as payloads without their envelope', async t => {
  const { subscription, push } = create()
  push({ text: 'ä' })
  push('two')
  t.same(await subscription.next(), { done: false, value: { text: 'ä' } })
  t.same(await subscription.next(), { done: false, value: 'two' })
})

t.test('readers that wait are served in the order in which they asked', async t => {
  const { subscription, push } = create()
  const readers = [subscription.next(), subscription.next()]
  push(1)
  push(2)
  t.same((await Promise.all(readers)).map(({ value }) => value), [1, 2])
})

t.test('no reader changes what another reader of the same message gets', async t => {
  const [one, two] = [create(), create()]
  const delivery = new Delivery(new Outgoing({ uid: 'u', node: 'n', topic: 'news', deadline: 0 }, '{"list":[]}'), undefined, true)
  one.subscription.push(delivery)
  two.subscription.push(delivery)
  const first = (await one.subscription.next()).value as { list: number[] }
  first.list.push(1)
  t.same((await two.subscription.next()).value, { list: [] })
})

t.test('a reader that is too slow gets what was held, then an error, then the end', async t => {
  const { subscription, push, detached } = create(2)
  push(1)
  push(2)
  t.equal(detached(), 0)
  push(3)
  t.equal(detached(), 1)
  push(4)
  t.same((await subscription.next()).value, 1)
  t.same((await subscription.next()).value, 2)
  await t.rejects(subscription.next(), { code: 'FST_ROOMS_SUBSCRIBER_SLOW', message: 'the subscriber of "news" is more than 2 messages behind' })
  t.same(await subscription.next(), end)
  t.equal(detached(), 1)
})

t.test('the end wakes readers; what was received before it can still be read', async t => {
  const { subscription, detached } = create()
  const reader = subscription.next()
  subscription.end()
  t.same(await reader, end)
  t.equal(detached(), 1)
  subscription.end()
  t.equal(detached(), 1, 'it is let go once')

  const other = create()
  other.push(1)
  other.subscription.end()
  t.same((await other.subscription.next()).value, 1)
  t.same(await other.subscription.next(), end)
})

t.test('an end by an error rejects all who wait', async t => {
  const { subscription } = create()
  const readers = [subscription.next(), subscription.next()]
  const error = new Error('the broker has gone')
  subscription.end(error)
  for (const reader of readers) await t.rejects(reader, error)
})

t.test('a reader that leaves lets go of what was held', async t => {
  const { subscription, push, detached } = create()
  push(1)
  t.same(await subscription.return(), end)
  t.equal(detached(), 1)
  t.same(await subscription.next(), end)
  t.equal(subscription[Symbol.asyncIterator](), subscription)
})
