import t from 'tap'
import { Outgoing } from '../../lib/feed/outgoing.ts'
import { Delivery } from '../../lib/room/delivery.ts'
import { Subscription } from '../../lib/room/reader.ts'
import { tailEnd } from '../../lib/protocol/server-frames.ts'

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

t.test('messages queue in order for a reader, as payloads without their envelope', async t => {
  const { subscription, push } = create()
  push({ text: 'ä' })
  push('two')
  t.same(await subscription.next(), { done: false, value: { text: 'ä' } })
  t.same(await subscription.next(), { done: false, value: 'two' })
})

t.test('waiting reads are served in the order of their calls', async t => {
  const { subscription, push } = create()
  const readers = [subscription.next(), subscription.next()]
  push(1)
  push(2)
  t.same((await Promise.all(readers)).map(({ value }) => value), [1, 2])
})

t.test('a reader that changes a message does not affect other readers', async t => {
  const [one, two] = [create(), create()]
  const delivery = new Delivery(new Outgoing({ uid: 'u', node: 'n', topic: 'news', deadline: 0 }, '{"list":[]}'), undefined, true)
  one.subscription.push(delivery)
  two.subscription.push(delivery)
  const first = (await one.subscription.next()).value as { list: number[] }
  first.list.push(1)
  t.same((await two.subscription.next()).value, { list: [] })
})

t.test('a slow reader gets its queued messages, then an error, then the end', async t => {
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

t.test('the end wakes waiting reads; messages received before it can still be read', async t => {
  const { subscription, detached } = create()
  const reader = subscription.next()
  subscription.end()
  t.same(await reader, end)
  t.equal(detached(), 1)
  subscription.end()
  t.equal(detached(), 1, 'the end callback is called once')

  const other = create()
  other.push(1)
  other.subscription.end()
  t.same((await other.subscription.next()).value, 1)
  t.same(await other.subscription.next(), end)
})

t.test('an end with an error rejects all waiting reads', async t => {
  const { subscription } = create()
  const readers = [subscription.next(), subscription.next()]
  const error = new Error('the broker has gone')
  subscription.end(error)
  for (const reader of readers) await t.rejects(reader, error)
})

t.test('a reader that returns drops its queue', async t => {
  const { subscription, push, detached } = create()
  push(1)
  t.same(await subscription.return(), end)
  t.equal(detached(), 1)
  t.same(await subscription.next(), end)
  t.equal(subscription[Symbol.asyncIterator](), subscription)
})

t.test('issue 8: after a thousand messages within a turn the reader waits for the next turn, and no message is lost or out of order', async t => {
  const { subscription, push } = create(1_500)
  for (let n = 0; n < 1_500; n++) push(n)
  const seen: unknown[] = []
  for (let n = 0; n < 1_000; n++) seen.push((await subscription.next()).value)
  const waiting = [subscription.next(), subscription.next()]
  for (const reader of waiting) reader.then(({ value }) => { seen.push(value) })
  for (let n = 0; n < 10; n++) await undefined
  t.equal(seen.length, 1_000)
  await new Promise(resolve => setImmediate(resolve))
  t.equal(seen.length, 1_002)
  for (let n = 1_002; n < 1_500; n++) seen.push((await subscription.next()).value)
  t.same(seen, Array.from({ length: 1_500 }, (_, n) => n))
})

t.test('issue 8: thousands of reads that wait for the turn are served in order', async t => {
  const { subscription, push } = create(5_000)
  const seen: unknown[] = []
  for (let n = 0; n < 3_500; n++) push(n)
  const readers = Array.from({ length: 3_500 }, async () => { seen.push((await subscription.next()).value) })
  await Promise.all(readers)
  t.same(seen, Array.from({ length: 3_500 }, (_, n) => n))
})

t.test('issue 8: a reader that waits for the turn is not slow, and gets the end after its messages', async t => {
  for (const error of [undefined, new Error('the end')]) {
    const { subscription, push, detached } = create(1)
    for (let n = 0; n < 1_000; n++) {
      push(n)
      await subscription.next()
    }
    const readers = Array.from({ length: 4 }, () => subscription.next())
    for (const n of [1, 2, 3]) push(n)
    t.equal(detached(), 0)
    subscription.end(error)
    t.same(await Promise.all(readers.slice(0, 3)), [1, 2, 3].map(value => ({ done: false, value })))
    if (error === undefined) t.same(await readers[3], end)
    else await t.rejects(readers[3]!, error)
  }
})
