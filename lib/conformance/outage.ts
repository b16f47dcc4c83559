import assert from 'node:assert/strict'
import type { Case } from './case.ts'
import { payloadsOf, roomy, type Node } from './node.ts'

/** Cases of a node that is cut off its server for some time. */
export const outageCases: readonly Case[] = [
  {
    name: 'a node that is cut off reports it, and comes up again',
    needs: ['cut'],
    async run ({ nodes, fleet, until, noticed }) {
      const [node] = await nodes(1) as [Node]
      await fleet.cut!(node.broker)
      await until('the broker is not up', () => node.state !== 'up', noticed)
      await fleet.heal!(node.broker)
      await until('the broker is up', () => node.state === 'up', noticed)
      await node.broker.attach(['a'])
      await node.publish('a', 1)
      assert.deepEqual(node.received('a'), [1])
    }
  },
  {
    name: 'topics that were attached before an outage are delivered after it, and what was missed is delivered or told',
    needs: ['cut', 'nodes'],
    async run ({ nodes, fleet, until, noticed, capabilities }) {
      const [node, other] = await nodes(2) as [Node, Node]
      const more = capabilities.history ? { retention: roomy } : {}
      await node.broker.attach(['a', 'b'], more.retention)
      await other.publish('a', 1, more)
      await until('the first entry arrives', () => node.received('a').length === 1)
      await fleet.cut!(node.broker)
      await other.publish('a', 2, more)
      await until('the broker is not up', () => node.state !== 'up', noticed)
      await node.broker.detach(['b']).catch(() => {})
      await fleet.heal!(node.broker)
      await until('the broker is up', () => node.state === 'up', noticed)
      await other.publish('a', 3, more)
      await other.publish('b', 4, more)
      await until('entries arrive again', () => node.received('a').includes(3))
      const received = node.received('a')
      if (!received.includes(2)) assert.ok(node.hasLost('a'), 'a loss that is not told')
      assert.deepEqual(received.filter(data => data !== 2), [1, 3])
      assert.deepEqual(received, [...new Set(received)].sort())
      assert.deepEqual(node.received('b'), [])
      if (capabilities.history) assert.deepEqual(payloadsOf(await node.history('a')), [1, 2, 3])
    }
  },
  {
    name: 'a publication in an outage settles, and with its mid it is there once after it',
    needs: ['cut', 'shared', 'history'],
    async run ({ nodes, fleet, until, noticed }) {
      const [node, other = node] = await nodes(2) as [Node, Node?]
      await node.broker.attach(['a'], roomy)
      await node.publish('a', 1, { retention: roomy })
      await fleet.cut!(node.broker)
      const { state } = await node.publish('a', 2, { retention: roomy, mid: 'm', deadline: Date.now() + 1_000 })
      assert.ok(state === 'failed' || state === 'unknown', `a publication that did not reach the server is "${state}"`)
      await fleet.heal!(node.broker)
      await until('the broker is up', () => node.state === 'up', noticed)
      const again = await node.publish('a', 2, { retention: roomy, mid: 'm' })
      assert.match(again.state, /^(?:ok|duplicate)$/)
      assert.deepEqual(payloadsOf(await other.history('a')), [1, 2])
    }
  }
]
