import t from 'tap'
import type { Broker, Outcome } from '../../types/index.ts'
import { Outgoing } from '../../lib/feed/outgoing.ts'
import { Delivery } from '../../lib/room/delivery.ts'
import { Feed, type Gap } from '../../lib/feed/feed.ts'
import { Losses } from '../../lib/feed/loss.ts'
import { Publisher } from '../../lib/feed/publisher.ts'
import { Subscription } from '../../lib/room/reader.ts'
import { memoryBroker } from '../../lib/index.ts'
import { createRooms, join, listen } from '../helpers/app.ts'
import { fakeMember } from '../helpers/fakes.ts'

const at = (offset: number, epoch = 'e') => ({ epoch, offset })
const outgoing = (uid = 'u1') => new Outgoing({ uid, node: 'n1', topic: 'news', deadline: 0 }, '1')

t.test('a feed classifies each entry, and promises a position only if nothing before it is missing', async t => {
  const feed = new Feed('news', {} as never, {} as never)
  t.notOk(feed.isReady)
  feed.attachedAt(at(3))
  t.ok(feed.isReady)
  t.same([feed.hasReached(at(3)), feed.hasReached(at(4)), feed.hasReached(at(1, 'f'))], [true, false, false])
  t.equal(feed.advance(at(4)), 'next')
  t.same([feed.advance(at(4)), feed.advance(at(2))], ['old', 'old'])
  t.same(feed.position, at(4))
  t.same(feed.advance(at(7)), { count: 2, reason: 'lost', from: 'e-4', to: 'e-6' })
  t.same(feed.advance(at(1, 'f')), { reason: 'reset', to: 'f-0' })
  t.same(feed.advance(at(0, 'g')), { reason: 'reset', to: 'g-0' }, 'offsets are not negative')
  t.equal(feed.advance(undefined), 'next')
  t.equal(feed.position, undefined, 'a message without a position came after the last position')
  t.same(feed.advance(at(3, 'g')), { count: 2, reason: 'lost', to: 'g-2' }, 'the begin of the gap is unknown')
  t.same(feed.lose(), { reason: 'lost', from: 'g-3' })
  t.equal(feed.lose(), undefined, 'a loss is reported once')
  t.equal(feed.position, undefined)
  t.equal(feed.advance(at(9, 'g')), 'next', 'the jump belongs to that loss')
  t.same(feed.position, at(9, 'g'))
  feed.lose()
  t.equal(feed.advance(at(9, 'g')), 'old')
  t.equal(feed.position, undefined, 'an old entry does not restore the position')
  feed.advance(at(10, 'g'))
  t.equal(feed.advance(at(1_011, 'g'), 10), 'next', 'offsets were left out')
  t.same(feed.advance(at(2_012, 'g'), 1_012), { count: 1, reason: 'lost', from: 'g-1011', to: 'g-1012' })
  t.same(feed.advance(at(3_013, 'g'), 2_000), { reason: 'lost', from: 'g-2012', to: 'g-2000' }, 'an entry that follows one before the last')
})

t.test('messages that were delivered on this node alone are told with the next entry, with a loss, or when the broker is back, once', async t => {
  const told: Gap[] = []
  const counters = { losses: 0, repeated: 0 }
  const feed = new Feed('news', { receive: () => 2, attached: () => {}, tellLoss: gap => { told.push(gap) } }, { counters, broker: { review: () => {} } } as never)
  const alone = (): Outgoing => {
    const publication = outgoing()
    feed.receiveAlone(publication)
    return publication
  }
  feed.attachedAt(at(3))
  feed.rejoin()
  t.match(alone(), { isDelivered: true, local: 2 })
  t.same(feed.position, at(3))
  t.same(feed.advance(at(4)), { reason: 'lost', from: 'e-3' })
  t.equal(feed.advance(at(5)), 'next')
  alone()
  t.same(feed.advance(at(9)), { count: 3, reason: 'lost', from: 'e-5', to: 'e-8' }, 'a hole tells it')
  alone()
  feed.rejoin()
  feed.rejoin()
  t.same([told, feed.position], [[{ reason: 'lost', from: 'e-9' }], at(9)])
  alone()
  feed.lost()
  feed.rejoin()
  t.same(told.slice(1), [{ reason: 'lost', from: 'e-9' }], 'a loss tells it')
  alone()
  t.same(feed.advance(at(10)), { reason: 'lost' })
  alone()
  t.same(feed.advance(undefined), { reason: 'lost', from: 'e-10' })
  const fresh = new Feed('news', { receive: () => 0 } as never, { broker: { review: () => {} } } as never)
  fresh.receiveAlone(outgoing())
  t.same(fresh.advance(at(1)), { reason: 'lost' })
  fresh.end()
  const late = outgoing()
  fresh.receiveAlone(late)
  t.notOk(late.isDelivered, 'the room has gone')
})

t.test('the position of attach counts unless a newer one has arrived, and with two epochs neither is promised', async t => {
  const stale = new Feed('news', {} as never, {} as never)
  stale.advance(at(5))
  stale.attachedAt(at(10))
  t.same(stale.position, at(10))
  t.equal(stale.advance(at(7)), 'old')
  const newer = new Feed('news', {} as never, {} as never)
  newer.advance(at(5))
  newer.attachedAt(at(4))
  t.same(newer.position, at(5))
  const other = new Feed('news', {} as never, {} as never)
  other.advance(at(5))
  other.lose()
  other.attachedAt(at(1, 'f'))
  t.equal(other.position, undefined)
  t.same(other.lose(), { reason: 'lost' }, 'a loss before attach settled reached no receiver')
  t.equal(other.lose(), undefined)
  other.receiverCame()
  t.same(other.lose(), { reason: 'lost' }, 'a receiver that came after the loss was not told of it')
  other.receiverCame()
  t.same(other.advance(at(8)), { count: 2, reason: 'lost', to: 'e-7' })
})

t.test('a feed without positions reports each loss that follows an entry', async t => {
  const feed = new Feed('news', {} as never, {} as never)
  feed.attachedAt(undefined)
  t.same(feed.lose(), { reason: 'lost' })
  t.equal(feed.lose(), undefined)
  t.equal(feed.advance(undefined), 'next')
  t.same(feed.lose(), { reason: 'lost' })
})

t.test('receivers that must end because of losses are ended in batches, for all rooms together, and get no further message', async t => {
  const ended: number[] = []
  const rooms = ['a', 'b'].map(topic => {
    const sessions = Array.from({ length: 600 }, (_, index) => fakeMember(`${topic}${index}`, index % 12 === 0 ? 'rooms.v1' : 'rooms.raw').session)
    for (const session of sessions) session.end = ({ code }) => { ended.push(code) }
    return { topic, definition: { key: '*' }, sessions, told: [] as string[], open: () => sessions, readers: new Set([new Subscription(topic, 10, () => {})]), tellGap ({ reason }: Gap) { this.told.push(reason) } }
  })
  const noted: string[] = []
  const losses = new Losses(({ topic }, { reason }) => { noted.push(`${topic} ${reason}`) })
  for (const room of rooms) losses.tell(room, { reason: 'lost' })
  t.same(noted, ['a lost', 'b lost'])
  t.equal(ended.length, 499, 'one subscriber is in the first batch')
  const raw = rooms.flatMap(({ sessions }) => sessions).filter(({ connection }) => connection.mode === 'rooms.raw')
  t.ok(raw.slice(499).every(({ connection }) => connection.transport.isClosing), 'nothing more is written to the others')
  const [subscription] = rooms[1]!.readers
  const reader = subscription!.next()
  subscription!.push(new Delivery(outgoing(), undefined, true))
  await t.rejects(reader, { code: 'FST_ROOMS_MESSAGES_LOST' }, 'the next message would be behind the gap')
  for (const room of rooms) losses.tell(room, { reason: 'lost' })
  while (ended.length < raw.length) await new Promise(resolve => setImmediate(resolve))
  for (let turn = 0; turn < 3; turn++) await new Promise(resolve => setImmediate(resolve))
  t.ok(ended.every(code => code === 4202))
  for (const { told } of rooms) t.same(told, ['lost', 'lost'])
})

t.test('a publisher handles synchronous and asynchronous outcomes, of in-process and other brokers', async t => {
  const ok: Outcome[] = [{ state: 'ok' }]
  const faults: string[] = []
  let isUp = true
  const publisher = (publish: Broker['publish'], inProcess: boolean): Publisher => new Publisher({ ...memoryBroker(), capabilities: memoryBroker().capabilities, inProcess, publish } as never, 200, { fault: message => { faults.push(message) }, unanswered: () => {}, isUpSince: () => isUp })
  const ready = new Feed('news', {} as never, {} as never)
  ready.attachedAt(undefined)

  t.same(publisher(() => ok, true).publish(outgoing(), ready), { state: 'ok' })
  t.same(publisher(() => [], true).publish(outgoing(), ready), { state: 'unknown' })
  t.same(await publisher(async () => ok, true).publish(outgoing(), ready), { state: 'ok' }, 'its entry came within the call')
  t.same(publisher(() => ok, false).publish(outgoing(), undefined), { state: 'ok' }, 'the topic is not attached on this node')

  const own = outgoing()
  const early = publisher(() => ok, false)
  const result = early.publish(own, ready)
  t.type(result, Promise, 'its entry is still to come')
  early.delivered(outgoing('another'))
  own.isDelivered = true
  early.delivered(own)
  t.same(await result, { state: 'ok' })
  t.equal(early.size, 0)

  const late = publisher(() => ok, false).publish(outgoing(), ready)
  t.same(await late, { state: 'ok' })
  t.same(faults, ['a publication of topic "news" was accepted, and its entry has not come'])
  isUp = false
  t.same(await publisher(() => ok, false).publish(outgoing(), ready), { state: 'ok' })
  t.equal(faults.length, 1, 'a node that was cut off gets the entry when it is back')

  const slow = publisher(() => new Promise(resolve => { setTimeout(resolve, 300, ok) }), false)
  t.same(await slow.publish(outgoing(), ready), { state: 'unknown' }, 'its deadline has passed')
  await new Promise(resolve => setTimeout(resolve, 200))
  t.equal(ready.answered, 0, 'a later outcome changes nothing')

  const closing = publisher(() => new Promise(() => {}), false)
  const left = [closing.publish(outgoing('u1'), ready), closing.publish(outgoing('u2'), undefined)]
  t.equal(closing.size, 2)
  closing.close()
  t.same(await Promise.all(left), [{ state: 'unknown' }, { state: 'unknown' }])
})

t.test('a message without a valid frame fails only for its publisher', async t => {
  const app = await createRooms(t)
  const member = await join(t, `${await listen(app)}/rooms/news`)
  const { byteLength } = Buffer
  Buffer.byteLength = () => { throw new RangeError('too long') }
  const failed = app.rooms.broadcast('news', 1)
  Buffer.byteLength = byteLength
  await t.rejects(failed, { message: 'too long' })
  t.match(await app.rooms.broadcast('news', 2), { local: 1 })
  t.equal((await member.next('message')).data, 2)
  t.match(app.rooms.stats(), { brokerFaults: 0, losses: 0 })
})
