import assert from 'node:assert/strict'
import type { Case } from './case.ts'
import { payloadsOf, roomy, type Node } from './node.ts'

/** Cases of publications that are sent again with the same `mid`. */
export const onceCases: readonly Case[] = [
  {
    name: 'a publication that is sent again with its mid, by any node, is a duplicate at the position of the first',
    needs: ['shared', 'history'],
    async run ({ nodes, quiet }) {
      const all = await nodes(3)
      const [node] = all as [Node]
      await node.broker.attach(['a', 'b'], roomy)
      const more = { retention: roomy, mid: 'user:ann order-17' }
      const { state, position } = await node.publish('a', 1, more)
      assert.equal(state, 'ok')
      await node.publish('a', 2, { retention: roomy })
      for (const other of all) {
        const again = await other.publish('a', 3, more)
        assert.equal(again.state, 'duplicate')
        assert.deepEqual({ ...again.position }, { ...position })
      }
      assert.equal((await node.publish('a', 4, { ...more, mid: 'user:ben order-17' })).state, 'ok', 'another mid')
      assert.equal((await node.publish('b', 5, more)).state, 'ok', 'another topic')
      await quiet()
      assert.deepEqual([node.received('a'), node.received('b')], [[1, 2, 4], [5]])
      assert.deepEqual(payloadsOf(await node.history('a')), [1, 2, 4])
    }
  },
  {
    name: 'of publications with one mid that are sent at the same moment, one is accepted',
    needs: ['shared', 'history'],
    async run ({ nodes }) {
      const all = await nodes(3)
      for (let n = 0; n < 10; n++) {
        const outcomes = await Promise.all(all.flatMap(node => [1, 2].map(async () => node.publish('a', n, { retention: roomy, mid: `m${n}` }))))
        assert.equal(outcomes.filter(({ state }) => state === 'ok').length, 1)
        assert.ok(outcomes.every(({ state }) => state === 'ok' || state === 'duplicate'))
      }
      assert.deepEqual(payloadsOf(await all[0]!.history('a')), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    }
  },
  {
    name: 'a publication that was refused does not take its mid',
    needs: ['shared', 'history'],
    async run ({ nodes }) {
      const [node] = await nodes(1) as [Node]
      const retention = { ...roomy, latest: true }
      await node.publish('a', 1, { retention, key: 'x', version: 2 })
      assert.equal((await node.publish('a', 2, { retention, key: 'x', version: 1, mid: 'm' })).state, 'stale')
      assert.equal((await node.publish('a', 3, { retention, key: 'x', version: 3, mid: 'm' })).state, 'ok')
      const again = await node.publish('a', 4, { retention, key: 'x', version: 1, mid: 'm' })
      assert.deepEqual([again.state, again.position?.offset], ['duplicate', 2], 'a duplicate of an accepted one is not stale')
    }
  }
]
