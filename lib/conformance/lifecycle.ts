import assert from 'node:assert/strict'
import type { Case } from './case.ts'
import type { Node } from './node.ts'

/** Cases of the start and the end of a broker, and of its numbers. */
export const lifecycleCases: readonly Case[] = [
  {
    name: 'a started broker reports that it is up',
    needs: [],
    async run ({ nodes }) {
      const [node] = await nodes(1) as [Node]
      assert.equal(node.state, 'up')
    }
  },
  {
    name: 'a broker starts only once',
    needs: [],
    async run ({ nodes }) {
      const [node] = await nodes(1) as [Node]
      await assert.rejects(node.broker.start('another', node.handlers))
    }
  },
  {
    name: 'start resolves if the server cannot be reached, and the broker comes up when it can',
    needs: ['cut'],
    async run ({ fresh, fleet, until, quiet }) {
      const node = await fresh()
      await fleet.cut!(node.broker)
      await node.broker.start(node.name, node.handlers)
      await quiet()
      assert.notEqual(node.state, 'up')
      await fleet.heal!(node.broker)
      await until('the broker is up', () => node.state === 'up')
      await node.broker.attach(['a'])
      assert.equal((await node.publish('a', 1)).state, 'ok')
      assert.deepEqual(node.received('a'), [1])
    }
  },
  {
    name: 'a closed broker delivers nothing, answers every call, and may be closed again',
    needs: [],
    async run ({ nodes, quiet }) {
      const [node, other = node] = await nodes(2) as [Node, Node?]
      const { broker } = node
      await broker.attach(['a'])
      await broker.close()
      await other.publish('a', 1)
      await node.publish('a', 2)
      await broker.attach(['b']).catch(() => {})
      await broker.detach(['a']).catch(() => {})
      await broker.control('*', Buffer.from('x'))
      await quiet()
      assert.deepEqual(node.entries, [])
      await broker.close()
    }
  },
  {
    name: 'a broker whose server cannot be reached closes within 2 s',
    needs: ['cut'],
    async run ({ nodes, fleet, closed }) {
      const [node] = await nodes(1) as [Node]
      await node.broker.attach(['a'])
      await fleet.cut!(node.broker)
      const before = performance.now()
      await node.broker.close()
      assert.ok(performance.now() - before < closed)
    }
  },
  {
    name: 'the numbers of a broker are numbers, and count its topics',
    needs: ['stats'],
    async run ({ nodes }) {
      const [node] = await nodes(1) as [Node]
      await node.broker.attach(['a', 'b'])
      await node.publish('a')
      const stats = node.broker.stats!()
      const { lag, queued, queuedBytes, topics, reconnects, resubscribed, missedProbes, mended, holes, resets, fenced, dropped, unreadable } = stats
      for (const number of [lag, queued, queuedBytes, topics, reconnects, resubscribed, missedProbes, mended, holes, resets, fenced, dropped, unreadable]) assert.ok(Number.isFinite(number) && number >= 0, JSON.stringify(stats))
      assert.equal(topics, 2)
      assert.deepEqual([queued, queuedBytes, reconnects, resubscribed, mended, holes, resets, fenced, dropped, unreadable], Array(10).fill(0))
    }
  }
]
