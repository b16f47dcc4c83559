import t from 'tap'
import { decodeDelta, parseMember } from '../../lib/redis/delta.ts'
import { changeScript } from '../../lib/redis/presence-scripts.ts'
import { until } from '../helpers/app.ts'
import { noRedis, startRedis } from '../helpers/redis-server.ts'
import { leave, set, startNodes, type PresenceNode } from './presence-nodes.ts'

const options = { skip: noRedis }

t.test('members of all nodes, with versions that have no hole', options, async t => {
  const server = await startRedis(t)
  const [a, b] = await startNodes(t, server.port, ['a', 'b']) as [PresenceNode, PresenceNode]

  t.test('are read on every node, and told to all that have the topic attached', async t => {
    t.same(await a.presence.read('a', 10), { version: 0, count: 0, members: [] })
    t.same(await a.change(set('a', 's1', 'änn 1', '{"name":"ä"}'), set('other', 's1', 'ben'), set('a', 's2')), ['first', 'first', undefined])
    t.same(await b.change(set('a', 's3', 'änn 1', '[1]'), leave('a', 'never', 'x')), [undefined, undefined])
    const page = await b.presence.read('a', 10)
    t.same({ ...page, members: page.members.sort((one, two) => one.session < two.session ? -1 : 1) }, {
      version: 2,
      count: 3,
      members: [{ session: 's1', node: 'a', user: 'änn 1', info: '{"name":"ä"}' }, { session: 's2', node: 'a' }, { session: 's3', node: 'b', user: 'änn 1', info: '[1]' }]
    })
    t.match([await a.presence.read('a', 0), await a.presence.read('a', 2)].map(({ count, members }) => [count, members.length]), [[3, 0], [3, 2]])
    await until(() => a.deltas.length === 2 && b.deltas.length === 2)
    t.same(a.deltas, b.deltas)
    t.same(a.deltas, [
      { topic: 'a', delta: { version: 1, node: 'a', set: [{ session: 's1', node: 'a', user: 'änn 1', info: '{"name":"ä"}' }, { session: 's2', node: 'a' }], leave: [] } },
      { topic: 'a', delta: { version: 2, node: 'b', set: [{ session: 's3', node: 'b', user: 'änn 1', info: '[1]' }], leave: [] } }
    ])
  })

  t.test('first and last of a user are told once over nodes, and changes of nothing are no delta', async t => {
    t.same(await a.change(set('a', 's1', 'änn 1', '"new"')), [undefined])
    t.same(await a.change(set('a', 's1', 'änn 1', '"new"')), ['first'])
    t.same(await a.change(leave('a', 's1', 'änn 1'), leave('a', 's1', 'änn 1'), leave('a', 's2')), [undefined, undefined, undefined])
    t.same(await b.change(leave('a', 's3', 'änn 1')), ['last'])
    t.same(await b.change(leave('a', 's3', 'änn 1')), ['last'])
    t.same(await b.change(set('a', 's4', 'ann'), set('a', 's4', 'ann', '1'), leave('a', 's4', 'ann'), set('a', 's5', 'ann')), ['first', undefined, 'last', 'first'])
    t.match(await a.presence.read('a', 10), { version: 6, count: 1 })
    await until(() => a.deltas.length === 6)
    t.same(a.deltas.map(({ delta }) => delta.version), [1, 2, 3, 4, 5, 6])
    t.same(a.deltas.at(-1)!.delta, { version: 6, node: 'b', set: [{ session: 's5', node: 'b', user: 'ann' }], leave: ['s4'] })
  })

  t.test('changes of one topic take effect in the order of the calls', async t => {
    const calls = Array.from({ length: 60 }, (_, n) => a.change(n % 2 === 0 ? set('order', 's', 'u') : leave('order', 's', 'u')))
    t.same((await Promise.all(calls)).flat(), Array.from({ length: 60 }, (_, n) => n % 2 === 0 ? 'first' : 'last'))
    const large = Array.from({ length: 700 }, (_, n) => set('large', `s${n}`, `u${n}`))
    t.equal((await a.change(...large)).length, 700)
    t.match(await b.presence.read('large', 5), { version: 1, count: 700, members: { length: 5 } })
  })

  t.test('numbers of members are summed over nodes', async t => {
    await a.presence.report(new Map([['x', 3], ['y', 1]]))
    await b.presence.report(new Map([['x', 4], ['z', 1]]))
    t.same(await a.presence.counts(['x', 'y', 'none']), [7, 1, 0])
    t.same((await b.presence.topics(10)).sort(), ['x', 'y', 'z'])
    t.equal((await b.presence.topics(2)).length, 2)
    await a.presence.report(new Map([['x', 0]]))
    t.same(await b.presence.counts(['x']), [4])
    t.same(await b.presence.counts([]), [])
  })

  t.test('no key is without a time to live', async t => {
    await a.presence.refresh()
    t.match(await server.command('EVAL', "local out = {} for _, key in ipairs(redis.call('KEYS', '*')) do if redis.call('PTTL', key) < 0 then out[#out + 1] = key end end return table.concat(out, ' ')", '0'), /^\$0\r\n/)
  })
})

t.test('members of a node that died are gone, and one node is told of their users', options, async t => {
  const server = await startRedis(t)
  const [dead, a, b] = await startNodes(t, server.port, ['dead', 'a', 'b']) as [PresenceNode, PresenceNode, PresenceNode]
  await dead.change(set('a', 's1', 'ann', '"x"'), set('a', 's2', 'ben'), set('a', 's3'), set('b', 's1', 'ann'), set('b', 's2', 'ann'))
  await a.change(set('a', 's4', 'ben'))
  await dead.presence.report(new Map([['a', 3]]))
  dead.cut()
  await until(() => a.gone.length + b.gone.length === 2, 5_000)
  t.same([...a.gone, ...b.gone].map(({ topic, user, info }) => [topic, user, info]).sort(), [['a', 'ann', '"x"'], ['b', 'ann', undefined]])
  t.same(await b.members('a'), ['s4'])
  t.match(await b.presence.read('b', 10), { count: 0, members: [] })
  t.same(await b.presence.counts(['a']), [0])
  await until(() => a.deltas.length === 3 && b.deltas.length === 3)
  t.match(b.deltas.at(-1)!.delta, { version: 3, node: 'dead', set: [], leave: { length: 3 } })
  await until(async () => (await server.command('EVAL', "return #redis.call('KEYS', '*dead*')", '0')) === ':1\r\n') // the claim of its sweeper
  t.same(await a.change(set('a', 's5', 'ann')), ['first'])

  // A node that suspends comes back: its members are noted again.
  await dead.change(set('a', 's6', 'cat')).catch(() => {})
  await dead.connect()
  t.same(await a.members('a'), ['s1', 's2', 's3', 's4', 's5', 's6'])
  t.same(dead.back, [{ topic: 'b', user: 'ann' }], 'ann is there by another node in the one topic, and comes back in the other')
  t.same(await dead.change(set('a', 's6', 'cat')), ['first'], 'a change that was not answered is answered now')
  t.same(await a.presence.counts(['a']), [3])
})

t.test('an answer that was lost is given again', options, async t => {
  const server = await startRedis(t)
  const [a, b] = await startNodes(t, server.port, ['a', 'b']) as [PresenceNode, PresenceNode]
  const failing = async (...changes: Parameters<PresenceNode['change']>): Promise<void> => {
    a.answered = () => { throw new Error('the answer was lost') }
    await t.rejects(a.change(...changes), /the answer was lost/)
    a.answered = () => {}
  }
  await failing(set('a', 's1', 'ann'))
  t.same(await a.change(set('a', 's1', 'ann')), ['first'])
  await failing(leave('a', 's1', 'ann'))
  t.same(await a.change(leave('a', 's1', 'ann')), ['last'])
  await a.change(set('a', 's2', 'ben'), set('a', 's3', 'cat'))
  a.cut()
  await t.rejects(a.change(leave('a', 's2', 'ben'), set('a', 's4', 'dan')), /no connection/)
  await a.connect()
  t.same(await b.members('a'), ['s3', 's4'], 'after the cut the members are those that the node has said last')
  t.same(await a.change(leave('a', 's2', 'ben'), set('a', 's4', 'dan')), ['last', 'first'])
  t.same(a.back, [])

  await a.change(set('solo', 's1', 'ann'))
  a.cut()
  await t.rejects(a.change(leave('solo', 's1', 'ann')), /no connection/)
  a.answered = script => { if (script === changeScript) throw new Error('the answer was lost') }
  await t.rejects(a.connect(), /the answer was lost/)
  t.same(await b.members('solo'), [])
  a.answered = () => {}
  t.same(await a.change(leave('solo', 's1', 'ann')), ['last'])
  await server.command('EVAL', "return redis.call('HSET', KEYS[1], 'b/broken', '1 9')", '1', (await server.command('KEYS', '*:pm:a')).split('\r\n')[2]!)
  t.same(await b.members('a'), ['s3', 's4'])
  t.same(await a.members('a'), ['s3', 's4'])
  t.same(a.deltas.map(({ delta }) => delta.version), b.deltas.slice(0, a.deltas.length).map(({ delta }) => delta.version))
})

t.test('a server that has lost its data is told all again', options, async t => {
  const server = await startRedis(t)
  const [a, b] = await startNodes(t, server.port, ['a', 'b']) as [PresenceNode, PresenceNode]
  await a.change(set('a', 's1', 'ann', '1'))
  await b.change(set('a', 's2', 'ben'))
  await a.presence.report(new Map([['a', 1]]))
  b.control.hold(['ben'], [])
  await until(async () => await a.control.send('user:ben', Buffer.from('1')) === 'sent')
  await server.command('FLUSHALL')
  await until(async () => (await a.members('a')).join() === 's1,s2', 5_000)
  await until(() => a.back.length === 1 && b.back.length === 1)
  t.same([a.back, b.back], [[{ topic: 'a', user: 'ann', info: '1' }], [{ topic: 'a', user: 'ben' }]])
  t.same(await b.presence.counts(['a']), [1])
  await until(async () => await a.control.send('user:ben', Buffer.from('2')) === 'sent', 5_000)
})

t.test('members of a node that no node knows any more are removed by a reading', options, async t => {
  const server = await startRedis(t)
  const [a, ghost] = await startNodes(t, server.port, ['a', 'ghost'], { times: { every: 60_000, ttl: 180_000 } }) as [PresenceNode, PresenceNode]
  await ghost.change(set('a', 's1', 'ann'))
  t.same(await a.members('a'), ['s1'], 'a node that is newer than the last beat is known after another one')
  await server.command('EVAL', "return redis.call('ZREM', KEYS[1], 'ghost:1')", '1', 'rooms:4:{' + (await server.command('KEYS', '*:alive')).split('{')[1]!.split('\r')[0]!)
  await a.presence.nodes.beat()
  t.same(await a.members('a'), [])
  t.same(a.gone, [{ topic: 'a', user: 'ann' }])
})

t.test('a reading has the members of a node that comes while those of a dead one are removed', options, async t => {
  const server = await startRedis(t)
  const times = { every: 60_000, ttl: 180_000 }
  const [a, ghost] = await startNodes(t, server.port, ['a', 'ghost'], { times }) as [PresenceNode, PresenceNode]
  await ghost.change(set('a', 's1', 'ann'))
  await server.command('EVAL', "return redis.call('ZREM', KEYS[1], 'ghost:1')", '1', 'rooms:4:{' + (await server.command('KEYS', '*:alive')).split('{')[1]!.split('\r')[0]!)
  const { nodes } = a.presence
  const { look } = nodes
  nodes.look = async () => {
    await look.call(nodes)
    nodes.look = look
    const [late] = await startNodes(t, server.port, ['late'], { times }) as [PresenceNode]
    await late.change(set('a', 's2', 'ben'))
  }
  t.same(await a.members('a'), ['s2'])
  // An answer that is on its way is not taken for a later one.
  await Promise.all([nodes.beat(), nodes.look()])
})

t.test('control messages reach one node, all others, or those that hold a user', options, async t => {
  const server = await startRedis(t)
  const [a, b, c] = await startNodes(t, server.port, ['a', 'b', 'c']) as [PresenceNode, PresenceNode, PresenceNode]
  t.equal(await a.control.send('node:c', Buffer.from('to c')), 'sent')
  t.equal(await a.control.send('node:nowhere', Buffer.from('x')), 'gone')
  t.equal(await a.control.send('node:a', Buffer.from('x')), 'gone')
  t.equal(await a.control.send('*', Buffer.from('to all')), 'sent')
  await until(() => b.controls.length === 1 && c.controls.length === 2)
  t.same([a.controls, b.controls, c.controls], [[], ['a to all'], ['a to c', 'a to all']])

  t.equal(await a.control.send('user:ann', Buffer.from('x')), 'gone')
  b.control.hold(['ann', 'ben'], [])
  b.control.hold([], ['ben', 'never'])
  a.control.hold(['ann'], [])
  await until(async () => await a.control.send('user:ann', Buffer.from('1')) === 'sent')
  t.equal(await a.control.send('user:ben', Buffer.from('x')), 'gone')
  t.same(a.controls, [])
  b.cut()
  await until(async () => await a.control.send('user:ann', Buffer.from('2')) === 'gone')
  b.control.hold(['cat'], ['ann'])
  t.equal(await b.control.send('*', Buffer.from('x')), 'unknown')
  await new Promise(resolve => setImmediate(resolve))
  await b.connect()
  await until(async () => await a.control.send('user:cat', Buffer.from('3')) === 'sent')
  t.equal(await a.control.send('user:ann', Buffer.from('4')), 'gone')

  for (const bytes of [Buffer.alloc(0), Buffer.from([2, 0, 1, 65]), Buffer.from([0x63]), Buffer.from([0x63, 0, 9, 65])]) c.control.read(bytes)
  t.equal(c.unreadable, 4)
})

t.test('a user whose note the server has refused is reached a little later, though nothing else is noted', options, async t => {
  const server = await startRedis(t)
  const [a, b] = await startNodes(t, server.port, ['a', 'b']) as [PresenceNode, PresenceNode]
  await server.command('CONFIG', 'SET', 'maxmemory', '1')
  b.control.hold(['ann'], [])
  await new Promise(resolve => setTimeout(resolve, 200))
  await server.command('CONFIG', 'SET', 'maxmemory', '0')
  t.equal(await a.control.send('user:ann', Buffer.from('1')), 'gone')
  await until(async () => await a.control.send('user:ann', Buffer.from('2')) === 'sent')
  await until(() => b.controls.length > 0)
  t.same(b.controls, ['a 2'])

  let notes = 0
  b.answered = ({ source }) => {
    if (!source.includes('SADD')) return
    notes++
    throw new Error('cut')
  }
  b.control.hold(['ben'], [])
  await until(() => notes === 1)
  b.control.hold(['cat'], [])
  await until(() => notes >= 3)
  t.equal(notes, 3, 'both together')
  await b.control.close()
  b.control.hold(['dan'], [])
  await new Promise(resolve => setTimeout(resolve, 1_200))
  t.equal(notes, 4, 'not again after the end')
})

t.test('a delta that cannot be read is counted, and the list is read again', options, async t => {
  for (const text of ['m2{}', 'm1', 'm1{', 'm1{"version":1}', 'm1{"version":"1","node":"a","set":{},"leave":{}}', 'm1{"version":1,"node":"a","set":{"x":1},"leave":{}}', 'm1{"version":1,"node":"a","set":[["s","u"]],"leave":{}}', 'm1{"version":1,"node":"a","set":[["s","u",1]],"leave":{}}', 'm1{"version":1,"node":"a","set":{},"leave":[1]}', 'm1{"version":1,"node":"a","set":[1],"leave":{}}']) {
    t.equal(decodeDelta(Buffer.from(text)), undefined, text)
  }
  t.equal(parseMember('a/s1', '1x'), undefined)
  t.equal(parseMember('no node', '1 0 '), undefined)
  const server = await startRedis(t)
  const [a] = await startNodes(t, server.port, ['a']) as [PresenceNode]
  a.presence.receive('a', Buffer.from('m1{}'))
  t.equal(a.unreadable, 1)
  t.same(a.deltas.at(-1), { topic: 'a', delta: undefined })
})

t.test('a node that died holds no users any more, and holds them again when it comes back', options, async t => {
  const server = await startRedis(t)
  const [a, b] = await startNodes(t, server.port, ['a', 'b']) as [PresenceNode, PresenceNode]
  const script = `
    local out = {}
    for _, key in ipairs(redis.call('KEYS', '*}:h*')) do
      local entries = redis.call('TYPE', key).ok == 'hash' and redis.call('HGETALL', key) or redis.call('SMEMBERS', key)
      table.sort(entries)
      out[#out + 1] = string.match(key, '}:(.*)') .. '=' .. table.concat(entries, ',')
    end
    table.sort(out)
    return table.concat(out, ' ')`
  const noted = async (): Promise<string> => (await server.command('EVAL', script, '0')).split('\r\n')[1]!
  // The users of a node are in as many partitions.
  const users = (name: string, all: string) => async () => (await noted()).split(' ').filter(entry => entry.startsWith(`hn:${name}=`)).flatMap(entry => entry.split('=')[1]!.split(',')).sort().join() === all
  const holders = async (): Promise<string[]> => (await noted()).split(' ').filter(entry => entry.startsWith('hu:'))
  b.control.hold(['ann', 'ben'], [])
  a.control.hold(['ben'], [])
  await until(users('b:1', 'ann,ben'))
  await until(users('a:1', 'ben'))
  t.same(await holders(), ['hu:ann=1,b', 'hu:ben=1,1,a,b'])
  b.cut()
  await until(users('b:1', ''), 5_000)
  t.same(await holders(), ['hu:ben=1,a'])

  // A node that was suspended goes on with what it was about to note, until it learns that it counts as dead.
  const counts = `${b.presence.nodes.counts}b:1`
  await server.command('HSET', counts, 'a', '1')
  b.control.hold(['cat'], ['ann'])
  await b.connect()
  await until(users('b:2', 'ben,cat'))
  await until(users('b:1', ''), 5_000)
  await until(async () => await server.command('EXISTS', counts) === ':0\r\n', 5_000)
  t.same(await holders(), ['hu:ben=1,2,a,b', 'hu:cat=2,b'])
  // Notes of an earlier incarnation that come late are removed without those of the later one.
  await server.command('EVAL', "for _, key in ipairs(redis.call('KEYS', '*}:hn:b:2')) do redis.call('COPY', key, (string.gsub(key, '2$', '1'))) end", '0')
  await until(users('b:1', 'ben,cat'))
  await a.control.forget('b:1')
  t.same(await noted(), (await noted()).replace(/hn:b:1\S* ?/g, ''))
  t.same(await holders(), ['hu:ben=1,2,a,b', 'hu:cat=2,b'])
  b.control.hold([], ['ben', 'cat'])
  a.control.hold([], ['ben'])
  await until(async () => await noted() === '')
})
