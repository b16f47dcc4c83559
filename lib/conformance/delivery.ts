import assert from 'node:assert/strict'
import type { Case } from './case.ts'
import { payloadOf, type Node } from './node.ts'

/** Names that differ by one character each, and the longest one. */
const names = ['chat:1', 'chat.1', 'chat-1', 'chat_1', 'chat~1', 'Chat:1', 'chat:1:', 'chat:1.', '...', 'x'.repeat(255)]

const count = (nodes: Node[], topic: string): number[] => nodes.map(node => node.uids(topic).length)

/** Cases of what every broker delivers. */
export const deliveryCases: readonly Case[] = [
  {
    name: 'publications of one topic arrive in the order of the calls, each before its outcome',
    needs: [],
    async run ({ nodes }) {
      const [node] = await nodes(1) as [Node]
      await node.broker.attach(['a'])
      const publications = [0, 1, 2, 3, 4].map(n => node.publication('a', n))
      for (const [index, one] of publications.slice(0, 3).entries()) {
        const outcomes = await node.broker.publish([one])
        assert.equal(outcomes[0]?.state, 'ok')
        assert.equal(node.entries.length, index + 1, 'an outcome came before its entry')
      }
      const outcomes = await node.broker.publish(publications.slice(3))
      assert.deepEqual(outcomes.map(({ state }) => state), ['ok', 'ok'], 'a batch has one outcome for each publication')
      assert.deepEqual(node.uids('a'), publications.map(({ uid }) => uid))
    }
  },
  {
    name: 'a publication arrives unchanged on every node, under its own topic',
    needs: [],
    async run ({ nodes, until, most }) {
      const all = await nodes(2)
      for (const { broker } of all) await broker.attach(['a', 'b'])
      const [node] = all as [Node]
      const payloads = [{ text: 'ä€😀\u2028' }, 'x'.repeat(200_000), null, '', [1, { a: [] }]]
      const publications = payloads.map(payload => node.publication('b', payload, { except: 's1', key: 'kä' }))
      assert.deepEqual((await node.broker.publish(publications)).map(({ state }) => state), payloads.map(() => 'ok'))
      await until('all entries arrive', () => all.every(({ entries }) => entries.length === publications.length))
      assert.equal(all.length, Math.min(2, most))
      for (const { entries } of all) {
        for (const [index, { topic, publication }] of entries.entries()) {
          const { v, uid, node, topic: named, tail, payloadLength, except, key } = publication
          const sent = publications[index]!
          assert.equal(topic, 'b')
          assert.deepEqual([v, uid, node, named, payloadLength, except, key], [sent.v, sent.uid, sent.node, 'b', sent.payloadLength, 's1', 'kä'])
          assert.ok(sent.tail.equals(tail), 'the bytes of a publication were changed')
        }
      }
    }
  },
  {
    name: 'topics whose names differ by one character are kept apart',
    needs: [],
    async run ({ nodes, until, quiet }) {
      const all = await nodes(2)
      for (const { broker } of all) await broker.attach(names)
      for (const name of names) await all[0]!.publish(name, name)
      await until('all entries arrive', () => all.every(({ entries }) => entries.length >= names.length))
      await quiet()
      for (const node of all) for (const name of names) assert.deepEqual(node.received(name), [name])
    }
  },
  {
    name: 'a topic that is not attached delivers nothing, and publishing to it succeeds',
    needs: [],
    async run ({ nodes, quiet }) {
      const [node, other = node] = await nodes(2) as [Node, Node?]
      await node.broker.attach(['a'])
      assert.equal((await node.publish('b')).state, 'ok')
      assert.equal((await other.publish('b')).state, 'ok')
      await quiet()
      assert.deepEqual([...node.entries, ...other.entries], [])
    }
  },
  {
    name: 'a topic delivers nothing after detach, and other topics stay attached',
    needs: [],
    async run ({ nodes, until, quiet }) {
      const [node, other = node] = await nodes(2) as [Node, Node?]
      await node.broker.attach(['a', 'b'])
      await node.broker.detach(['a'])
      await other.publish('a', 1)
      await other.publish('b', 2)
      await node.publish('a', 3)
      await until('the entry of the attached topic arrives', () => node.received('b').length === 1)
      await quiet()
      assert.deepEqual(node.entries.map(({ topic }) => topic), ['b'])
      await node.broker.detach(['a', 'never'])
    }
  },
  {
    name: 'attach and detach of one topic take effect in the order of the calls',
    needs: [],
    async run ({ nodes, until, quiet }) {
      const [node, other = node] = await nodes(2) as [Node, Node?]
      const { broker } = node
      await Promise.all([broker.attach(['a']), broker.detach(['a']), broker.attach(['a'])])
      await other.publish('a', 1)
      await until('a topic that was attached last is delivered', () => node.received('a').length === 1)
      await Promise.all([broker.detach(['a']), broker.attach(['a']), broker.detach(['a'])])
      await other.publish('a', 2)
      await node.publish('a', 3)
      await quiet()
      assert.deepEqual(node.received('a'), [1])
    }
  },
  {
    name: 'outcomes of one topic settle in the order of the calls',
    needs: [],
    async run ({ nodes }) {
      const [node] = await nodes(1) as [Node]
      await node.broker.attach(['a'])
      const settled: number[] = []
      await Promise.all(Array.from({ length: 30 }, async (_, n) => {
        assert.equal((await node.publish('a', n)).state, 'ok')
        settled.push(n)
      }))
      assert.deepEqual(settled, Array.from({ length: 30 }, (_, n) => n))
      assert.deepEqual(node.received('a'), settled)
    }
  },
  {
    name: 'a topic is delivered from the moment at which attach settles',
    needs: ['nodes'],
    async run ({ nodes, until }) {
      const [node, other] = await nodes(2) as [Node, Node]
      for (let n = 0; n < 20; n++) {
        await node.broker.attach([`t${n}`])
        await other.publish(`t${n}`, n)
      }
      await until('each topic has its entry', () => node.entries.length === 20)
    }
  },
  {
    name: 'every node gets each publication once, those of one node in the order of its calls',
    needs: ['nodes'],
    async run ({ nodes, until, quiet }) {
      const all = await nodes(3)
      for (const { broker } of all) await broker.attach(['a'])
      await Promise.all(all.flatMap(node => Array.from({ length: 20 }, (_, n) => node.publish('a', [node.name, n]))))
      await until('all entries arrive', () => count(all, 'a').every(found => found >= 20 * all.length))
      await quiet()
      for (const { entries } of all) {
        for (const { name } of all) {
          const numbers = entries.map(({ publication }) => payloadOf(publication) as [string, number]).filter(([from]) => from === name).map(([, n]) => n)
          assert.deepEqual(numbers, Array.from({ length: 20 }, (_, n) => n))
        }
      }
    }
  },
  {
    name: 'all nodes get the publications of a topic in one order',
    needs: ['nodes', 'total', 'history'],
    async run ({ nodes, until }) {
      const all = await nodes(3)
      const retention = { size: 1_000, bytes: 1_000_000, ttl: 60_000, latest: false }
      for (const { broker } of all) await broker.attach(['a'], retention)
      await Promise.all(all.flatMap(node => Array.from({ length: 40 }, (_, n) => node.publish('a', n, { retention }))))
      await until('all entries arrive', () => count(all, 'a').every(found => found >= 40 * all.length))
      for (const node of all) {
        assert.deepEqual(node.uids('a'), all[0]!.uids('a'))
        assert.deepEqual(node.entries.map(({ position }) => position), all[0]!.entries.map(({ position }) => position))
      }
    }
  },
  {
    name: 'a node gets only the topics that it has attached',
    needs: ['nodes'],
    async run ({ nodes, until, quiet }) {
      const [node, other] = await nodes(2) as [Node, Node]
      await node.broker.attach(['a'])
      await other.broker.attach(['b'])
      await node.publish('b', 1)
      await other.publish('a', 2)
      await until('both entries arrive', () => node.entries.length === 1 && other.entries.length === 1)
      await quiet()
      assert.deepEqual([node.received('a'), node.received('b'), other.received('a'), other.received('b')], [[2], [], [], [1]])
    }
  }
]
