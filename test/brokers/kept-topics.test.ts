import { mock } from 'node:test'
import t from 'tap'
import { KeptTopics, type Log } from '../../lib/brokers/kept-topics.ts'
import type { Retention } from '../../types/index.ts'
import { publication } from './start.ts'

const retention: Retention = { size: 10, bytes: 10_000, ttl: 60_000, latest: false }
const sizeOfOne = publication('x', 'x'.repeat(91)).tail.length

function log (topic: string, more: Partial<Log> = {}): Log {
  return { topic, epoch: 'e'.repeat(16), offset: 0, isAttached: false, retention, kept: undefined, expiresAt: Infinity, ended: undefined, quietSince: 0, ...more }
}

function fill (topics: KeptTopics, one: Log, times = 1): Log {
  for (let n = 0; n < times; n++) {
    one.offset++
    topics.append(one, publication(one.topic, 'x'.repeat(91)))
  }
  return one
}

t.test('over the bound of all topics, those that were quiet longest lose their messages', async t => {
  const topics = new KeptTopics(() => {})
  t.teardown(() => { topics.close() })
  topics.mostBytes = 5 * sizeOfOne + 3 * 1_536
  const [a, b, c] = ['a', 'b', 'c'].map(name => fill(topics, log(name))) as [Log, Log, Log]
  fill(topics, a)
  t.same(topics.stats(), { topics: 3, messages: 4, bytes: 4 * sizeOfOne, evicted: 0 })
  fill(topics, c, 2)
  t.equal(topics.of(b), undefined, 'b was quiet longest')
  t.equal(topics.of(a)?.count, 2)
  t.same(topics.stats(), { topics: 2, messages: 5, bytes: 5 * sizeOfOne, evicted: 1 })
  topics.mostBytes = 5 * sizeOfOne + 1_536
  fill(topics, c, 7)
  t.equal(topics.of(a), undefined)
  t.equal(topics.of(c)?.count, 5, 'the last topic keeps the newest that fit')
  t.equal(topics.of(c)?.from, 5)
  t.ok(topics.stats().bytes <= topics.mostBytes)
  topics.mostBytes = 1
  fill(topics, c)
  t.equal(topics.of(c)?.count, 1, 'and at least one')
})

t.test('positions of topics that have nothing else are forgotten after 30 days, and at most 100,000 are remembered', async t => {
  const forgotten: string[] = []
  const topics = new KeptTopics(topic => { forgotten.push(topic) })
  t.teardown(() => { topics.close() })
  const first = log('first')
  topics.detached(first)
  topics.detached(log('second'))
  for (let n = 0; n < 100_000; n++) topics.detached(log(`t${n}`))
  t.same(forgotten, ['first', 'second'])
  topics.attached(first)
})

t.test('a sweep each second drops what has expired, and ends when there is nothing left', async t => {
  mock.timers.enable({ apis: ['setInterval'] })
  t.teardown(() => { mock.timers.reset() })
  const forgotten: string[] = []
  const topics = new KeptTopics(topic => { forgotten.push(topic) })
  const short = fill(topics, log('short'))
  const attached = fill(topics, log('attached', { isAttached: true }))
  const long = fill(topics, log('long'))
  mock.timers.tick(1_000)
  t.equal(topics.stats().topics, 3)
  short.expiresAt = attached.expiresAt = 0
  mock.timers.tick(1_000)
  t.same(topics.stats(), { topics: 1, messages: 1, bytes: sizeOfOne, evicted: 0 })
  t.equal(short.kept, undefined)
  short.quietSince = -31 * 86_400_000
  mock.timers.tick(1_000)
  t.same(forgotten, ['short'], 'after 30 days')
  long.expiresAt = 0
  mock.timers.tick(1_000)
  t.same(forgotten, ['short'])
  long.quietSince = -31 * 86_400_000
  mock.timers.tick(1_000)
  t.same(forgotten, ['short', 'long'], 'a topic with members keeps its position')
  fill(topics, log('again'))
  t.equal(topics.stats().topics, 1)
  topics.close()
})
