import assert from 'node:assert/strict'
import type { Case, Stage } from './case.ts'
import type { Node } from './node.ts'

const texts = ({ controls }: Node): string[] => controls.map(({ text }) => text)

async function hold (node: Node, from: Node, until: Stage['until'], user: string, isHeld: boolean): Promise<void> {
  node.broker.hold!(isHeld ? [user] : [], isHeld ? [] : [user])
  // `hold` has no answer: the users that a node holds are known soon, not at once.
  await until('the user is known', async () => {
    const answer = await from.broker.control(`user:${user}`, Buffer.from('probe'))
    return (answer === 'sent') === isHeld
  })
}

/** Cases of messages from node to node. */
export const controlCases: readonly Case[] = [
  {
    name: 'a control message to a node reaches that node alone, unchanged and in order',
    needs: ['nodes'],
    async run ({ nodes, until, quiet }) {
      const all = await nodes(3)
      const [node, other] = all as [Node, Node]
      const sent = ['1', '2', 'ä'.repeat(40_000), '4', '']
      const answers = await Promise.all(sent.map(async text => node.broker.control(`node:${other.name}`, Buffer.from(text))))
      assert.deepEqual(answers, sent.map(() => 'sent'))
      await until('the messages arrive', () => other.controls.length === sent.length)
      await quiet()
      assert.deepEqual(other.controls, sent.map(text => ({ from: node.name, text })))
      for (const third of all) if (third !== other) assert.deepEqual(third.controls, [])
    }
  },
  {
    name: 'a control message to a node that does not exist is gone',
    needs: [],
    async run ({ nodes }) {
      const [node] = await nodes(1) as [Node]
      assert.equal(await node.broker.control('node:nowhere', Buffer.from('x')), 'gone')
    }
  },
  {
    name: 'a control message to all reaches all other nodes, and not its own',
    needs: ['nodes'],
    async run ({ nodes, until, quiet }) {
      const [node, ...others] = await nodes(3) as [Node, ...Node[]]
      assert.equal(await node.broker.control('*', Buffer.from('x')), 'sent')
      await until('the message arrives', () => others.every(({ controls }) => controls.length === 1))
      await quiet()
      assert.deepEqual(others.flatMap(({ controls }) => controls), others.map(() => ({ from: node.name, text: 'x' })))
      assert.deepEqual(node.controls, [])
    }
  },
  {
    name: 'a control message to a user reaches the nodes that hold the user, and no node after that',
    needs: ['nodes', 'hold'],
    async run ({ nodes, until, quiet }) {
      const all = await nodes(3)
      const [node, holder] = all as [Node, Node]
      await hold(holder, node, until, 'ann', true)
      node.broker.hold!(['ann'], [])
      for (const { controls } of all) controls.length = 0
      assert.equal(await node.broker.control('user:ann', Buffer.from('1')), 'sent')
      await until('the message arrives', () => texts(holder).includes('1'))
      await quiet()
      for (const third of all) if (third !== holder) assert.deepEqual(texts(third).filter(text => text !== 'probe'), [])
      await hold(holder, node, until, 'ann', false)
      assert.equal(await node.broker.control('user:ann', Buffer.from('2')), 'gone')
      await quiet()
      for (const third of all) assert.ok(!texts(third).includes('2'))
    }
  },
  {
    name: 'a node that has closed, or was killed, gets no control messages',
    needs: ['nodes'],
    async run ({ nodes, until, fleet, gone }) {
      const [node, closed, killed] = await nodes(3) as [Node, Node, Node?]
      const isGone = (name: string) => async () => await node.broker.control(`node:${name}`, Buffer.from('x')) === 'gone'
      await closed.broker.close()
      await until('the closed node is gone', isGone(closed.name))
      if (killed === undefined || fleet.kill === undefined) return
      await fleet.kill(killed.broker)
      await until('the killed node is gone', isGone(killed.name), gone)
    }
  }
]
