import t from 'tap'
import { Redis } from 'ioredis'
import { publishScript } from '../../lib/redis/script.ts'
import type { Retention } from '../../types/index.ts'
import { range, startNode, until } from '../helpers/redis-node.ts'
import { noRedis, startRedis } from '../helpers/redis-server.ts'

const retention: Retention = { size: 100, bytes: 1_000_000, ttl: 60_000, latest: false }

t.test('two nodes', { skip: noRedis }, async t => {
  const server = await startRedis(t)

  t.test('see the publications of a topic in one order, at the same positions', async t => {
    const nodes = [await startNode(t, server.port), await startNode(t, server.port)]
    for (const { broker } of nodes) await broker.attach(['a'], retention)
    const outcomes = await Promise.all(Array.from({ length: 300 }, (_, i) => nodes[i % 2]!.publish('a', i)))
    await until(() => nodes.every(({ entries }) => entries.length === 300))
    t.equal(nodes[0]!.entries.length, 300)
    t.same(nodes[0]!.entries, nodes[1]!.entries)
    t.same(nodes[0]!.positions, nodes[1]!.positions)
    t.same(nodes[0]!.positions.map(position => position!.offset), Array.from({ length: 300 }, (_, i) => i + 1))
    t.ok(outcomes.every(([outcome]) => outcome!.state === 'ok'))
    for (const parity of [0, 1]) {
      const own = nodes[0]!.entries.map(entry => Number(entry.slice(2))).filter(n => n % 2 === parity)
      t.same(own, [...own].sort((a, b) => a - b), 'what a node publishes stays in the order of its calls')
    }
  })

  t.test('share a topic that keeps nothing: each message once, own members at once', async t => {
    const nodes = [await startNode(t, server.port), await startNode(t, server.port)]
    for (const { broker } of nodes) t.same(await broker.attach(['plain']), [null])
    const published = nodes[0]!.publish('plain', 1, { retention: undefined })
    t.same(nodes[0]!.entries, ['plain 1'])
    t.same(await published, [{ state: 'ok' }])
    await until(() => nodes[1]!.entries.length > 0)
    await nodes[1]!.publish('plain', 2, { retention: undefined })
    await until(() => nodes[0]!.entries.length > 1)
    t.same(nodes.map(({ entries }) => entries), [['plain 1', 'plain 2'], ['plain 1', 'plain 2']])
    t.match(await server.command('KEYS', '*plain*'), /^\*0/, 'nothing of it is kept')
  })

  t.test('take a message id once, whichever node sends it, with and without retention', async t => {
    const nodes = [await startNode(t, server.port), await startNode(t, server.port)]
    for (const more of [{ mid: 'm1' }, { mid: 'm2', retention: undefined }]) {
      const topic = `once-${more.mid}`
      for (const { broker } of nodes) await broker.attach([topic], 'retention' in more ? undefined : retention)
      const [first] = await nodes[0]!.publish(topic, 1, more)
      t.equal(first!.state, 'ok')
      t.same(nodes[0]!.entries.filter(entry => entry.startsWith(topic)), [`${topic} 1`], 'the entry precedes the outcome')
      const after = nodes[0]!.publish(topic, 2, { ...more, mid: undefined })
      t.same(await nodes[1]!.publish(topic, 1, more), [{ ...first, state: 'duplicate' }])
      t.same(await nodes[0]!.publish(topic, 1, more), [{ ...first, state: 'duplicate' }])
      await after
      await until(() => nodes.every(({ entries }) => entries.filter(entry => entry.startsWith(topic)).length === 2))
      for (const { entries } of nodes) t.same(entries.filter(entry => entry.startsWith(topic)), [`${topic} 1`, `${topic} 2`])
    }
    t.match((await Promise.all(['b:1', 'b'].map(topic => nodes[0]!.publish(topic, 1, { mid: topic === 'b' ? '1:1' : '1' })))).flat(), [{ state: 'ok' }, { state: 'ok' }], 'ids belong to a topic')
  })

  t.test('refuse an older version of a value, which takes no position', async t => {
    const node = await startNode(t, server.port)
    const values = { ...retention, latest: true }
    await node.broker.attach(['values'], values)
    const publish = (key: string, version?: number) => node.publish('values', version ?? null, { retention: values, key, version })
    const outcomes = (await Promise.all([publish('k', 2), publish('k', 1), publish('other', 1), publish('k'), publish('k', 2)])).flat()
    t.same(outcomes.map(({ state, position }) => [state, position?.offset]), [['ok', 1], ['stale', undefined], ['ok', 2], ['ok', 3], ['ok', 4]])
    const { messages, from } = await node.broker.history!('values', { limit: 10, bytes: 1_000, retention: values })
    t.same([messages.map(({ offset, key }) => [offset, key]), from], [[[2, 'other'], [4, 'k']], 3])
  })

  t.test('reach each other by control, and never themselves', async t => {
    const nodes = [await startNode(t, server.port, { prefix: 'control' }), await startNode(t, server.port, { prefix: 'control' })]
    const [a, b] = nodes as [typeof nodes[number], typeof nodes[number]]
    t.equal(await a.broker.control('*', Buffer.from('all')), 'sent')
    t.equal(await b.broker.control(`node:${a.name}`, Buffer.from('back')), 'sent')
    a.broker.hold!(['u'], [])
    while (await b.broker.control('user:u', Buffer.from('user')) !== 'sent') await new Promise(resolve => setImmediate(resolve))
    await until(() => a.controls.length === 2 && b.controls.length === 1)
    t.same([a.controls, b.controls], [[`${b.name} back`, `${b.name} user`], [`${a.name} all`]])
    t.equal(await a.broker.control('node:none', Buffer.from('x')), 'gone')
    await b.broker.close()
    await until(() => false, 20)
    t.equal(await a.broker.control('*', Buffer.from('x')), 'gone')
    t.equal(await b.broker.control('*', Buffer.from('x')), 'unknown')
  })

  t.test('lose nothing by SCRIPT FLUSH', async t => {
    const node = await startNode(t, server.port)
    await node.broker.attach(['flushed'], retention)
    await node.publish('flushed', 1)
    await server.command('SCRIPT', 'FLUSH')
    t.match(await node.publish('flushed', 2), [{ state: 'ok', position: { offset: 2 } }])
    t.same(node.entries, ['flushed 1', 'flushed 2'])
  })

  t.test('begin a new epoch after FLUSHALL, and lose nothing of it', async t => {
    const nodes = [await startNode(t, server.port), await startNode(t, server.port)]
    for (const { broker } of nodes) await broker.attach(['f'], retention)
    const [before] = await nodes[0]!.publish('f', 1)
    await until(() => nodes.every(({ entries }) => entries.length === 1))
    await server.command('FLUSHALL')
    const [after] = await nodes[0]!.publish('f', 2)
    t.equal(after!.position!.offset, 1)
    t.not(after!.position!.epoch, before!.position!.epoch)
    await until(() => nodes.every(({ entries }) => entries.length === 2))
    for (const { entries, positions } of nodes) t.same([entries, positions.at(-1)], [['f 1', 'f 2'], after!.position])
  })

  t.test('leave no key without a TTL', async t => {
    const node = await startNode(t, server.port)
    await node.publish('k', 1, { mid: 'm' })
    await node.broker.attach(['k2'], retention)
    await node.broker.history!('k3', { limit: 1, bytes: 1, retention })
    await node.publish('k4', 1, { key: 'k', retention: { ...retention, latest: true } })
    const keys = [...(await server.command('KEYS', '*')).matchAll(/^[^*$].*$/gm)].map(([key]) => key.trim())
    t.ok(keys.length >= 10)
    for (const key of keys) t.notMatch(await server.command('PTTL', key), /^:-1/, key)
  })

  t.test('a subscription ends when the topic has had no member for long enough', async t => {
    const node = await startNode(t, server.port, { linger: 50, prefix: 'linger' })
    await node.broker.attach(['a', 'b'], retention)
    t.match(await server.command('PUBSUB', 'CHANNELS', 'linger:*:c:*'), /^\*2/)
    await node.broker.detach(['a'])
    await node.broker.attach(['a'], retention)
    await node.broker.detach(['b'])
    await until(() => node.broker.stats!().topics === 1)
    await node.broker.attach(['b'], retention)
    await node.publish('b', 1)
    t.same(node.entries, ['b 1'], 'a new subscription is not lost in the end of the old one')
    await node.broker.detach(['a', 'b'])
    await until(() => node.broker.stats!().topics === 0)
    await until(() => false, 20)
    t.match(await server.command('PUBSUB', 'CHANNELS', 'linger:*:c:*'), /^\*0/)
  })
})

t.test('a server that has lost the newest publications begins a new epoch before it takes others', { skip: noRedis }, async t => {
  const server = await startRedis(t)
  const nodes = [await startNode(t, server.port), await startNode(t, server.port)]
  for (const { broker } of nodes) await broker.attach(['a'], retention)
  for (let n = 1; n <= 3; n++) await nodes[0]!.publish('a', n)
  await server.command('SAVE')
  for (let n = 4; n <= 6; n++) await nodes[0]!.publish('a', n)
  const [before] = await nodes[0]!.publish('a', 7)
  await until(() => nodes[1]!.entries.length === 7)
  await server.restart()
  const [after] = await nodes[0]!.publish('a', 8)
  t.not(after!.position!.epoch, before!.position!.epoch)
  t.equal(after!.position!.offset, 4)
  await until(() => nodes.every(({ entries }) => entries.length === 8))
  for (const { entries, positions } of nodes) {
    t.same(entries, range(1, 8))
    t.same(positions.at(-1), after!.position)
  }
})

t.test('a call that was done before is answered from its fence, and one behind it is refused', { skip: noRedis }, async t => {
  const server = await startRedis(t)
  const client = new Redis(server.port, '127.0.0.1')
  t.teardown(() => { client.disconnect() })
  const frame = Buffer.alloc(20)
  frame.writeUInt32BE(20, 0)
  const call = (node: string, seq: number): Promise<[string, string]> => client.eval(publishScript.source, 4, 'm', 's', 'f', 'z', 'c', 'PUBLISH', 'epochepoch1', '', '0', node, seq, 'l', '-1', '1000', '60000', '60000', '1', '', '', frame, '', '', '', '', '0') as never
  t.same(await call('n', 1), ['done', 'epochepoch1 o1'])
  t.same(await call('n', 1), ['fenced', 'epochepoch1 o1'])
  t.same(await call('n', 2), ['done', 'epochepoch1 o2'])
  t.same(await call('n', 1), ['passed', ''])
  t.same(await call('other', 1), ['done', 'epochepoch1 o3'])
  await client.del('m')
  t.same(await call('n', 2), ['done', 'epochepoch1 o1'], 'without its metadata a fence is void')
  await client.del('s')
  t.same(await call('n', 3), ['done', 'epochepoch1 o2'])
  await client.del('f')
  t.same(await call('n', 3), ['done', 'epochepoch1 o3'])
  await client.xadd('s', '9-0', 'd', frame)
  t.same(await call('n', 4), ['done', 'epochepoch1 o4'], 'a stream that is ahead of its metadata is void, too')
  for (let n = 0; n < 300; n++) await call(`n${n}`, 1)
  t.ok(await client.hlen('f') <= 129, 'fences are bounded')
  t.same((await call('n299', 1))[0], 'fenced')
})
