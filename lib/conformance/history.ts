import assert from 'node:assert/strict'
import type { Publication, Retention } from '../../types/index.ts'
import type { Case } from './case.ts'
import { payloadsOf, roomy, type Node } from './node.ts'
import { random } from './random.ts'

interface Modelled { offset: number, size: number, key: string | undefined, data: string }

/** Milliseconds for which the topics of the case of expiry keep their messages. */
const ttl = 900

const wait = (milliseconds: number): Promise<void> => new Promise(resolve => { setTimeout(resolve, milliseconds) })

/** Publishes messages of random length and key to topics of random bounds, and compares a random reading with a model. */
async function compareWithModel (node: Node, seed: number): Promise<void> {
  const next = random(seed)
  const below = (most: number): number => Math.floor(next() * most)
  const latest = below(2) === 0
  // Values may count more bytes than their tails.
  const retention: Retention = { size: below(4) === 0 ? Infinity : 1 + below(12), bytes: latest || below(3) === 0 ? 1_000_000 : 1 + below(2_000), ttl: 60_000, latest }
  const topic = `model-${seed}`
  let model: Modelled[] = []
  let from = 0
  const drop = (gone: Modelled): void => {
    model = model.filter(other => other !== gone)
    from = Math.max(from, gone.offset)
  }
  const publications: Publication[] = []
  for (let offset = 1, messages = below(40); offset <= messages; offset++) {
    const data = 'x'.repeat(below(120))
    const key = [undefined, 'a', 'b', 'ä', ''][below(5)]
    const one = node.publication(topic, data, { retention, ...(key === undefined ? {} : { key }) })
    publications.push(one)
    if (latest) for (const other of model.filter(other => other.key === key)) drop(other)
    model.push({ offset, size: one.tail.length, key, data })
    while (model.length > retention.size || (model.length > 0 && model.reduce((sum, { size }) => sum + size, 0) > retention.bytes)) drop(model[0]!)
  }
  await node.broker.publish(publications)
  const after = below(3) === 0 ? undefined : below(45)
  const limit = 1 + below(20)
  const bytes = below(2) === 0 ? 1_000_000 : below(900)
  const behind = after === undefined ? [...model].reverse() : model.filter(({ offset }) => offset > after)
  let read = 0
  const expected = behind.filter(({ size }, index) => (read += size) <= bytes && index < limit)
  if (after === undefined) expected.reverse()
  const page = await node.history(topic, { limit, bytes, retention, ...(after === undefined ? {} : { after }) })
  const reading = JSON.stringify({ seed, retention, published: publications.length, after, limit, bytes })
  assert.deepEqual(page.messages.map(({ offset, key }) => [offset, key]), expected.map(({ offset, key }) => [offset, key]), reading)
  assert.deepEqual(payloadsOf(page), expected.map(({ data }) => data), reading)
  assert.deepEqual([page.position.offset, page.from], [publications.length, from], reading)
}

/** Cases of positions and of kept messages. */
export const historyCases: readonly Case[] = [
  {
    name: 'a position has an epoch of 11 to 64 letters and digits, and an offset that grows by one',
    needs: ['history'],
    async run ({ nodes }) {
      const [node] = await nodes(1) as [Node]
      const [a, b] = await node.broker.attach(['a', 'b'], roomy)
      assert.match(a!.epoch, /^[A-Za-z0-9]{11,64}$/)
      assert.notEqual(a!.epoch, b!.epoch)
      const outcomes = await node.broker.publish([0, 1, 2].map(n => node.publication('a', n, { retention: roomy })))
      const expected = [1, 2, 3].map(step => ({ epoch: a!.epoch, offset: a!.offset + step }))
      assert.deepEqual(outcomes.map(({ position }) => ({ ...position })), expected)
      assert.deepEqual(node.entries.map(({ position }) => ({ ...position })), expected, 'the outcome and the entry have the same position')
      assert.deepEqual((await node.publish('b', 1, { retention: roomy })).position, { epoch: b!.epoch, offset: b!.offset + 1 }, 'each topic counts on its own')
    }
  },
  {
    name: 'attach returns the position of what was published before, by every node',
    needs: ['history'],
    async run ({ nodes }) {
      const [node, other = node] = await nodes(2) as [Node, Node?]
      const [before] = await node.broker.attach(['a'], roomy)
      await other.publish('a', 1, { retention: roomy })
      assert.deepEqual(await node.broker.attach(['a'], roomy), [{ epoch: before!.epoch, offset: before!.offset + 1 }])
      await node.publish('a', 2, { retention: roomy })
      assert.deepEqual(await other.broker.attach(['a'], roomy), [{ epoch: before!.epoch, offset: before!.offset + 2 }])
      assert.equal(before!.offset, 0, 'an earlier result does not change afterwards')
    }
  },
  {
    name: 'a node that attaches while others publish gets all that is behind its position, without a hole',
    needs: ['history', 'nodes'],
    async run ({ nodes, until }) {
      const [node, other] = await nodes(2) as [Node, Node]
      let published = 0
      const publisher = { isOver: false }
      const publishing = (async () => {
        while (!publisher.isOver) {
          await Promise.all([1, 2, 3].map(async () => other.publish('a', ++published, { retention: roomy })))
          await wait(1)
        }
      })()
      try {
        for (let n = 0; n < 15; n++) {
          const first = node.entries.length
          const [position] = await node.broker.attach(['a'], roomy)
          await until('entries arrive', () => node.entries.length > first + 2)
          await node.broker.detach(['a'])
          const offsets = node.entries.slice(first).map(({ position }) => position!.offset)
          const behind = offsets.filter(offset => offset > position!.offset)
          assert.deepEqual(offsets, offsets.map((_, index) => offsets[0]! + index))
          assert.deepEqual(behind, behind.map((_, index) => position!.offset + 1 + index))
        }
      } finally {
        publisher.isOver = true
        await publishing
      }
    }
  },
  {
    name: 'a topic that keeps messages has positions without members, from the first reading, join or publication on',
    needs: ['history'],
    async run ({ nodes }) {
      const [node] = await nodes(1) as [Node]
      const { position: { epoch, offset } } = await node.history('read')
      assert.equal(offset, 0)
      assert.deepEqual((await node.publish('read', 1, { retention: roomy })).position, { epoch, offset: 1 })
      assert.deepEqual(await node.broker.attach(['read'], roomy), [{ epoch, offset: 1 }])
      await node.broker.detach(['read'])
      assert.deepEqual((await node.publish('read', 2, { retention: roomy })).position, { epoch, offset: 2 })
      assert.deepEqual(await node.broker.attach(['read'], roomy), [{ epoch, offset: 2 }])
    }
  },
  {
    name: 'a message is kept before its entry arrives, on every node',
    needs: ['history'],
    async run ({ nodes, until }) {
      const all = await nodes(3)
      const late: number[] = []
      const readings: Promise<void>[] = []
      for (const node of all) {
        node.onEntry = ({ topic, position }) => {
          readings.push(node.history(topic, { after: position!.offset - 1 }).then(({ messages }) => { if (messages[0]?.offset !== position!.offset) late.push(position!.offset) }))
        }
        await node.broker.attach(['a'], roomy)
      }
      for (let n = 0; n < 10; n++) await all[n % all.length]!.publish('a', n, { retention: roomy })
      await until('all entries arrive', () => all.every(({ entries }) => entries.length === 10))
      await Promise.all(readings)
      assert.deepEqual(late, [])
      for (const node of all) assert.deepEqual(payloadsOf(await node.history('a')), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    }
  },
  {
    name: 'kept messages are those of a model: by number, bytes and key, for every reading',
    needs: ['history'],
    async run ({ nodes }) {
      const [node] = await nodes(1) as [Node]
      for (let seed = 1; seed <= 150; seed++) await compareWithModel(node, seed)
    }
  },
  {
    name: 'messages expire as a whole, a ttl after the last publication, and the position goes on',
    needs: ['history'],
    async run ({ nodes, until }) {
      const [node] = await nodes(1) as [Node]
      const retention = { ...roomy, ttl }
      const begin = performance.now()
      await node.publish('a', 1, { retention })
      await wait(ttl * 2 / 3)
      const since = performance.now()
      await node.publish('a', 2, { retention })
      const isInTime = performance.now() - begin < ttl
      await wait(ttl / 2)
      const kept = payloadsOf(await node.history('a', { retention }))
      // A machine that is busy may have slept too long to tell.
      if (isInTime && performance.now() - since < ttl) assert.deepEqual(kept, [1, 2])
      await until('all messages have expired', async () => (await node.history('a', { retention })).messages.length === 0)
      assert.ok(performance.now() - since >= ttl - 20, 'the messages have expired early')
      await node.publish('a', 3, { retention })
      const { position, from, messages } = await node.history('a', { retention })
      assert.equal(position.offset, 3)
      assert.deepEqual([from, messages.map(({ offset }) => offset)], [2, [3]])
    }
  },
  {
    name: 'an end is kept like a message, and nothing is accepted behind it, on any node',
    needs: ['history'],
    async run ({ nodes, until }) {
      const [node, other = node] = await nodes(2) as [Node, Node?]
      const end = { tail: Buffer.from('"reason":"done","data":1}'), payloadLength: 0, end: 'done', retention: roomy } as const
      assert.equal((await node.history('a')).ended, undefined)
      const [before] = await node.broker.attach(['a'], roomy)
      assert.equal(before?.ended, undefined)
      await node.publish('a', 1, { retention: roomy })
      const { state, position } = await other.publish('a', null, end)
      assert.deepEqual([state, position?.offset], ['ok', 2])
      await until('the end arrives', () => node.entries.length === 2)
      assert.equal(node.entries[1]!.publication.end, 'done')
      for (const { broker, publication } of [node, other].map(one => ({ broker: one.broker, publication: one.publication('a', 2, { retention: roomy }) }))) {
        assert.deepEqual((await broker.publish([publication, { ...publication, ...end, uid: `${publication.uid}-end` }])).map(({ state }) => state), ['ended', 'ended'])
      }
      assert.equal(node.entries.length, 2)
      const page = await other.history('a')
      assert.deepEqual([page.position.offset, page.ended, page.messages.map(({ offset, payloadLength }) => [offset, payloadLength === 0])], [2, 'done', [[1, false], [2, true]]])
      assert.equal(Buffer.from(page.messages[1]!.tail).toString(), end.tail.toString())
      await node.broker.detach(['a'])
      for (const { broker } of [node, other]) assert.deepEqual((await broker.attach(['a'], roomy)).map(position => [position?.offset, position?.ended]), [[2, 'done']])
    }
  },
  {
    name: 'an older version of a value is stale: neither kept nor delivered, whichever node sends it',
    needs: ['history'],
    async run ({ nodes, quiet }) {
      const [node, other = node] = await nodes(2) as [Node, Node?]
      const retention = { ...roomy, latest: true }
      await node.broker.attach(['a'], retention)
      const publish = async (from: Node, data: number, key: string, version?: number): Promise<string> => (await from.publish('a', data, { retention, key, ...(version === undefined ? {} : { version }) })).state
      assert.equal(await publish(node, 1, 'x', 5), 'ok')
      assert.equal(await publish(other, 2, 'x', 4), 'stale')
      assert.equal(await publish(other, 3, 'y', 1), 'ok')
      assert.equal(await publish(other, 4, 'x', 5), 'ok')
      assert.equal(await publish(node, 5, 'x', 4), 'stale')
      await quiet()
      assert.deepEqual(node.received('a'), [1, 3, 4])
      const page = await node.history('a', { retention })
      assert.deepEqual([page.position.offset, page.messages.map(({ offset, key }) => [offset, key])], [3, [[2, 'y'], [3, 'x']]])
      for (const after of [undefined, 0]) {
        const all = await node.history('a', { retention, limit: Infinity, ...(after === undefined ? {} : { after }) })
        assert.deepEqual(all.messages.map(({ offset }) => offset), [2, 3], 'limit: Infinity')
      }
      assert.equal(await publish(node, 6, 'x'), 'ok', 'a value without a version replaces any')
    }
  }
]
