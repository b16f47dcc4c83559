import assert from 'node:assert/strict'
import type { PresenceChange, PresenceMember, PresencePage } from '../../types/index.ts'
import type { Case } from './case.ts'
import type { Node } from './node.ts'

const set = (topic: string, session: string, user?: string, info?: string): PresenceChange => ({ topic, session, type: 'set', ...(user === undefined ? {} : { user }), ...(info === undefined ? {} : { info }) })
const leave = (topic: string, session: string, user?: string): PresenceChange => ({ topic, session, type: 'leave', ...(user === undefined ? {} : { user }) })

const change = async (node: Node, ...changes: PresenceChange[]): Promise<(string | undefined)[]> => (await node.broker.presence!.change(changes)).map(({ user }) => user)

const read = async (node: Node, topic: string, limit = 100): Promise<PresencePage> => node.broker.presence!.read(topic, limit)

/** The sessions of members, sorted, because they come in no order. */
const sessions = (members: readonly PresenceMember[]): string[] => members.map(({ session }) => session).sort()

const versions = (node: Node, topic: string): number[] => node.deltas.filter(delta => delta.topic === topic).map(({ delta }) => delta.version)

/** The members of a topic as a node knows them: a page, and the deltas behind it. */
function replica (page: PresencePage, node: Node, topic: string): string[] {
  const members = new Set(sessions(page.members))
  for (const { topic: named, delta: { version, set, leave } } of node.deltas) {
    if (named !== topic || version <= page.version) continue
    for (const { session } of set) members.add(session)
    for (const session of leave) members.delete(session)
  }
  return [...members].sort()
}

/** Cases of the members of topics over nodes. */
export const presenceCases: readonly Case[] = [
  {
    name: 'members of all nodes are read on every node',
    needs: ['presence'],
    async run ({ nodes }) {
      const all = await nodes(2)
      const [node, other = node] = all as [Node, Node?]
      assert.deepEqual(await read(node, 'a'), { version: 0, count: 0, members: [] })
      await change(node, set('a', 's1', 'ann', '{"name":"ä"}'), set('a', 's2'), set('b', 's3', 'ann'))
      await change(other, set('a', 's4', 'ben'))
      for (const each of all) {
        const page = await read(each, 'a')
        assert.equal(page.count, 3)
        const members = page.members.map(({ session, node, user, info }) => [session, node, user, info]).sort()
        assert.deepEqual(members, [['s1', node.name, 'ann', '{"name":"ä"}'], ['s2', node.name, undefined, undefined], ['s4', other.name, 'ben', undefined]])
        assert.deepEqual([(await read(each, 'a', 2)).members.length, (await read(each, 'a', 0)).members.length, (await read(each, 'a', 0)).count], [2, 0, 3])
      }
      await change(node, leave('a', 's1', 'ann'))
      assert.deepEqual(sessions((await read(other, 'a')).members), ['s2', 's4'])
      await change(other, set('a', 's4', 'ben', '"new"'))
      assert.deepEqual((await read(node, 'a')).members.find(({ session }) => session === 's4')?.info, '"new"')
    }
  },
  {
    name: 'every node that has a topic attached is told each version once and in order, with the changes of one call as one',
    needs: ['presence', 'nodes'],
    async run ({ nodes, until, quiet }) {
      const all = await nodes(3)
      for (const { broker } of all) await broker.attach(['a'])
      const [node, other] = all as [Node, Node]
      await change(node, set('a', 's1', 'ann', '1'), set('b', 's1', 'ann'), set('a', 's2', 'ann', '2'))
      await Promise.all(all.flatMap((each, index) => [1, 2, 3].map(async n => change(each, set('a', `n${index}-${n}`)))))
      await change(other, leave('a', 'n1-1'), leave('a', 'n1-2'))
      await change(other, leave('a', 'n1-1'), leave('a', 'never'))
      const { version } = await read(node, 'a')
      assert.ok(version <= 2 + 3 * all.length, 'a call that changes nothing, or one topic, has more than one version')
      await until('all versions arrive', () => all.every(each => versions(each, 'a').length >= version))
      await quiet()
      for (const each of all) {
        assert.deepEqual(versions(each, 'a'), Array.from({ length: version }, (_, n) => n + 1))
        const [first] = each.deltas
        assert.equal(first!.delta.node, node.name)
        assert.deepEqual(first!.delta.set.map(({ session, node, user, info }) => [session, node, user, info]), [['s1', node.name, 'ann', '1'], ['s2', node.name, 'ann', '2']])
        assert.deepEqual(versions(each, 'b'), [], 'a topic that is not attached')
      }
    }
  },
  {
    name: 'a page and the deltas behind it are the members, for a node that comes late',
    needs: ['presence', 'nodes'],
    async run ({ nodes, until }) {
      const [node, late] = await nodes(2) as [Node, Node]
      const changing = (async () => {
        for (let n = 0; n < 60; n++) await change(node, n % 3 === 2 ? leave('a', `s${n - 1}`) : set('a', `s${n}`))
      })()
      await late.broker.attach(['a'])
      const page = await read(late, 'a')
      await changing
      const last = await read(node, 'a')
      await until('all versions arrive', () => page.version === last.version || versions(late, 'a').at(-1) === last.version)
      assert.deepEqual(replica(page, late, 'a'), sessions(last.members))
    }
  },
  {
    name: 'the first and the last session of a user are told once, over all nodes',
    needs: ['presence'],
    async run ({ nodes }) {
      const [node, other = node] = await nodes(2) as [Node, Node?]
      assert.deepEqual(await change(node, set('a', 's1', 'ann')), ['first'])
      assert.deepEqual(await change(other, set('a', 's2', 'ann'), set('b', 's2', 'ann')), [undefined, 'first'], 'each topic counts on its own')
      assert.deepEqual(await change(other, set('a', 's2', 'ann', '"new"')), [undefined], 'a change of info')
      assert.deepEqual(await change(node, set('a', 's3')), [undefined], 'a session without a user')
      assert.deepEqual(await change(node, leave('a', 's1', 'ann')), [undefined])
      assert.deepEqual(await change(other, leave('a', 'never', 'ann')), [undefined], 'a session that is not noted')
      assert.deepEqual(await change(other, leave('a', 's2', 'ann')), ['last'])
      assert.deepEqual(await change(node, set('a', 's4', 'ann'), leave('a', 's4', 'ann'), set('a', 's5', 'ann')), ['first', 'last', 'first'])
      const racing = await Promise.all([node, other].flatMap((each, index) => [1, 2, 3].map(async n => change(each, set('race', `${index}-${n}`, 'ann')))))
      assert.equal(racing.flat().filter(user => user === 'first').length, 1)
      const leaving = await Promise.all([node, other].flatMap((each, index) => [1, 2, 3].map(async n => change(each, leave('race', `${index}-${n}`, 'ann')))))
      assert.equal(leaving.flat().filter(user => user === 'last').length, 1)
    }
  },
  {
    name: 'a change that is sent again is answered as before, and changes nothing',
    needs: ['presence'],
    async run ({ nodes }) {
      const [node, other = node] = await nodes(2) as [Node, Node?]
      for (const expected of [['first', undefined], ['first', undefined]]) assert.deepEqual(await change(node, set('a', 's1', 'ann', '1'), set('a', 's2', 'ann', '2')), expected)
      assert.equal((await read(other, 'a')).count, 2)
      for (const expected of [[undefined, 'last'], [undefined, 'last']]) assert.deepEqual(await change(node, leave('a', 's1', 'ann'), leave('a', 's2', 'ann')), expected)
      assert.deepEqual(await change(other, set('a', 's3', 'ann')), ['first'])
    }
  },
  {
    name: 'numbers of members that nodes report are summed, and name the topics that have some',
    needs: ['presence'],
    async run ({ nodes }) {
      const [node, other = node] = await nodes(2) as [Node, Node?]
      const counts = async (from: Node): Promise<number[]> => from.broker.presence!.counts(['a', 'b', 'none'])
      await node.broker.presence!.report(new Map([['a', 3], ['b', 1]]))
      if (other !== node) await other.broker.presence!.report(new Map([['a', 4]]))
      const ofOther = other === node ? 0 : 4
      for (const each of [node, other]) {
        assert.deepEqual(await counts(each), [3 + ofOther, 1, 0])
        assert.deepEqual((await each.broker.presence!.topics(10)).sort(), ['a', 'b'])
        assert.equal((await each.broker.presence!.topics(1)).length, 1)
      }
      await node.broker.presence!.report(new Map([['a', 0], ['b', 2]]))
      assert.deepEqual(await counts(other), [ofOther, 2, 0])
    }
  },
  {
    name: 'members of a node that was killed leave, and one node is told of their users',
    needs: ['presence', 'nodes', 'kill'],
    async run ({ nodes, until, fleet, gone, quiet }) {
      const [dead, ...alive] = await nodes(3) as [Node, Node, ...Node[]]
      const [node] = alive
      for (const { broker } of alive) await broker.attach(['a'])
      await change(dead, set('a', 's1', 'ann', '"x"'), set('a', 's2', 'ben'), set('a', 's3'), set('b', 's1', 'ann'))
      await change(node!, set('a', 's4', 'ben'))
      await dead.broker.presence!.report(new Map([['a', 3]]))
      const before = await read(node!, 'a')
      assert.equal(before.count, 4)
      await fleet.kill!(dead.broker)
      await until('its members are gone', async () => (await read(node!, 'a')).count === 1 && (await read(node!, 'b')).count === 0, gone)
      await until('its users are told', () => alive.flatMap(({ gone }) => gone).length >= 2, gone)
      await until('its numbers are gone', async () => (await node!.broker.presence!.counts(['a']))[0] === 0, gone)
      await quiet()
      const told = alive.flatMap(({ gone }) => gone).sort((a, b) => a.topic < b.topic ? -1 : 1)
      assert.deepEqual(told.map(({ topic, user, info }) => [topic, user, info]), [['a', 'ann', '"x"'], ['b', 'ann', undefined]])
      for (const each of alive) {
        await until('each node is told of the leaves', () => replica(before, each, 'a').length === 1)
        const known = versions(each, 'a')
        assert.deepEqual(known, known.map((_, index) => known[0]! + index))
      }
      assert.deepEqual(await change(node!, set('a', 's5', 'ann')), ['first'])
    }
  },
  {
    name: 'after an outage a node has the members that it has said last',
    needs: ['presence', 'nodes', 'cut'],
    async run ({ nodes, until, fleet, gone }) {
      const [node, other] = await nodes(2) as [Node, Node]
      await change(node, set('a', 's1', 'ann'), set('a', 's2', 'ben'))
      await fleet.cut!(node.broker)
      // As a hub does, which sends a change again until it is answered.
      let isAnswered = false
      const changing = until('the change is answered', async () => {
        await change(node, leave('a', 's1', 'ann'), set('a', 's3')).then(() => { isAnswered = true }, () => {})
        return isAnswered
      }, gone)
      await fleet.heal!(node.broker)
      await changing
      await until('the members are those of the node', async () => sessions((await read(other, 'a')).members).join() === 's2,s3', gone)
    }
  }
]
