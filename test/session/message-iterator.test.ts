import t from 'tap'
import { MessageIterator } from '../../lib/session/message-iterator.ts'

function create () {
  let abandoned = 0
  const claim = new MessageIterator('s1', () => { abandoned++ })
  return { claim, abandoned: () => abandoned }
}

/** Whether a promise has settled after a turn of the event loop. */
async function settled (promise: unknown): Promise<boolean> {
  let done = false
  Promise.resolve(promise).then(() => { done = true })
  await new Promise(resolve => setImmediate(resolve))
  return done
}

t.test('an offer to a waiting reader is taken at once, without a promise', async t => {
  const { claim } = create()
  const next = claim.next()
  t.equal(claim.offer('a'), undefined)
  t.same(await next, { done: false, value: 'a' })
})

t.test('an offer without a waiting reader settles when it is taken', async t => {
  const { claim } = create()
  const offer = claim.offer('a')
  t.notOk(await settled(offer))
  t.same(await claim.next(), { done: false, value: 'a' })
  t.ok(await settled(offer))
})

t.test('several reads are served in the order of their calls', async t => {
  const { claim } = create()
  const readers = [claim.next(), claim.next()]
  claim.offer('a')
  claim.offer('b')
  t.same(await Promise.all(readers), [{ done: false, value: 'a' }, { done: false, value: 'b' }])
})

t.test('the end wakes waiting reads, and earlier offers can still be taken', async t => {
  const { claim, abandoned } = create()
  const waiting = claim.next()
  claim.end()
  t.same(await waiting, { done: true, value: undefined })

  const other = create().claim
  const offer = other.offer('last')
  other.end()
  t.same(await other.next(), { done: false, value: 'last' })
  t.ok(await settled(offer))
  t.same(await other.next(), { done: true, value: undefined })
  t.equal(abandoned(), 0, 'the end of the member does not count as a reader that left')
})

t.test('nothing is taken after the end', async t => {
  const { claim } = create()
  claim.end()
  t.throws(() => claim.offer('late'), { code: 'FST_ROOMS_SESSION_CLOSED' })
  t.same(await claim.next(), { done: true, value: undefined })
})

t.test('a reader that leaves stops the iterator, and messages that it did not take count as not taken', async t => {
  const { claim, abandoned } = create()
  const offer = claim.offer('unread') as Promise<void>
  t.same(await claim.return(), { done: true, value: undefined })
  t.equal(abandoned(), 1)
  await t.rejects(offer, { code: 'FST_ROOMS_SESSION_CLOSED', message: 'session "s1" has closed' })
  t.same(await claim.next(), { done: true, value: undefined }, 'an offered message is dropped with its reader')
})

t.test('the iterator of a session is its own iterator', async t => {
  const { claim } = create()
  t.equal(claim[Symbol.asyncIterator](), claim)
  t.equal((await claim.return()).done, true)
})
