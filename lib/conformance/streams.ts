import assert from 'node:assert/strict'
import type { Case } from './case.ts'
import type { Node } from './node.ts'

export const streamCases: readonly Case[] = [
  {
    name: 'a stream has one producer, on one node',
    needs: ['streams'],
    async run ({ nodes, until }) {
      const [node, other] = await nodes(2) as [Node, Node | undefined]
      const streams = node.broker.streams!
      assert.equal(await streams.claim('a'), true)
      assert.equal(await streams.claim('a'), true, 'a node may repeat its own claim')
      assert.equal(await streams.claim('b'), true)
      assert.equal(await streams.isTaken('a'), false)
      if (other === undefined) return
      assert.equal(await other.broker.streams!.claim('a'), false)
      assert.equal(await other.broker.streams!.isTaken('a'), true)
      assert.equal(await other.broker.streams!.isTaken('c'), false)
      other.broker.streams!.release('a')
      assert.equal(await other.broker.streams!.claim('a'), false, 'a node gives back its own claims alone')
      streams.release('a')
      await until('the stream is free', () => other.broker.streams!.claim('a'))
      assert.equal(await streams.isTaken('a'), true)
      assert.equal(await other.broker.streams!.claim('b'), false)
    }
  },
  {
    name: 'streams of a node that was killed are ended by another one, and are free then',
    needs: ['streams', 'nodes', 'kill'],
    async run ({ nodes, until, fleet, gone, quiet }) {
      const [dead, ...alive] = await nodes(3) as [Node, ...Node[]]
      for (const topic of ['a', 'b', 'c']) assert.equal(await dead.broker.streams!.claim(topic), true)
      dead.broker.streams!.release('c')
      assert.equal(await alive[0]!.broker.streams!.claim('d'), true)
      // The first node that is asked cannot end them.
      let refusals = 1
      for (const node of alive) node.orphaned = async () => { if (refusals-- > 0) throw new Error('the end was not accepted') }
      await fleet.kill!(dead.broker)
      await until('the streams are ended', () => alive.flatMap(({ orphans }) => orphans).length >= 2, gone)
      await until('the streams are free', async () => !await alive[0]!.broker.streams!.isTaken('a') && await alive[0]!.broker.streams!.claim('b'), gone)
      await quiet()
      assert.deepEqual(alive.flatMap(({ orphans }) => orphans).sort(), ['a', 'b'])
    }
  }
]
