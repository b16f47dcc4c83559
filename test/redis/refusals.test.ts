import t from 'tap'
import { Redis } from 'ioredis'
import { redisBroker } from '../../lib/redis/index.ts'
import { checkServer } from '../../lib/redis/server-check.ts'
import type { Retention } from '../../types/index.ts'
import { startNode, until } from '../helpers/redis-node.ts'
import { noRedis, startRedis } from '../helpers/redis-server.ts'

const retention: Retention = { size: 100, bytes: 1_000_000, ttl: 60_000, latest: false }
const rights = '+@read +@write +@scripting +@pubsub +@connection +info +time'.split(' ')

function clientOf (port: number, options: object = {}): Redis {
  return new Redis(port, '127.0.0.1', { lazyConnect: true, ...options })
}

t.test('wrong options are refused by name', async t => {
  const client = new Redis({ lazyConnect: true })
  const given: [object | undefined, RegExp][] = [
    [undefined, /option "client"/], [{}, /option "client"/],
    [{ client, prefix: '' }, /option "prefix"/], [{ client, prefix: 'a{b' }, /option "prefix"/], [{ client, prefix: 'a b' }, /option "prefix"/], [{ client, prefix: 7 }, /option "prefix"/], [{ client, prefix: () => {} }, /option "prefix".*function/],
    [{ client: Object.create(null) }, /another object/], [{ client: new Map() }, /a Map/],
    [{ client, partitions: 0 }, /option "partitions"/], [{ client, partitions: 1.5 }, /option "partitions"/], [{ client, heartbeat: 6_000 }, /option "heartbeat"/], [{ client, linger: -1 }, /option "linger"/]
  ]
  for (const [options, message] of given) t.throws(() => redisBroker(options as never), { code: 'FST_ROOMS_INVALID_OPTION', message })
  const unstarted = redisBroker({ client })
  await unstarted.detach(['a'])
  t.equal(await unstarted.control('*', Buffer.from('x')), 'unknown')
  t.same(new Set(Object.values(unstarted.stats!())), new Set([0]))
  await t.rejects(redisBroker({ client }).attach(['a']), { message: /closed/ })
  await t.rejects(async () => redisBroker({ client }).history!('a', { limit: 1, bytes: 1, retention }), { message: /closed/ })
})

t.test('an old server is refused, and one that may drop messages is reported', async t => {
  const check = async (info: string | Error) => checkServer({ send: () => [info instanceof Error ? Promise.reject(info) : Promise.resolve(Buffer.from(info))] } as never)
  await t.rejects(check('redis_version:6.2.14\r\n'), { code: 'FST_ROOMS_BROKER_UNSUITABLE', message: /Redis 6\.2\.14/ })
  t.same(await check('redis_version:7.2.4\r\nvalkey_version:8.0.1\r\nrun_id:12ab\r\nmaster_replid:0123456789abcdef01\r\nmaxmemory_policy:noeviction\r\n'), { warning: undefined, run: '12ab0123456789abcdef' })
  for (const policy of ['allkeys-lru', 'volatile-lru', 'volatile-ttl']) {
    t.match(await check(`redis_version:7.0.15\r\nmaxmemory_policy:${policy}\r\n`), { warning: { code: 'FST_ROOMS_BROKER_UNSUITABLE', message: new RegExp(policy) }, run: '' })
  }
  t.match(await check('redis_version:7.0.15\r\n'), { warning: undefined })
  await t.rejects(check(new Error('cut')), { message: 'cut' })
})

t.test('servers that refuse', { skip: noRedis }, async t => {
  const server = await startRedis(t)

  t.test('the documented rights are enough, without INFO, too', async t => {
    for (const [user, allowed] of [['all', rights], ['blind', rights.filter(right => right !== '+info')]] as const) {
      await server.command('ACL', 'SETUSER', user, 'on', '>secret', '~rights:*', '&rights:*', ...allowed)
      const node = await startNode(t, server.port, { client: clientOf(server.port, { username: user, password: 'secret' }), prefix: 'rights' })
      await node.broker.attach(['a'], retention)
      t.match(await node.publish('a', 1, { mid: user }), [{ state: 'ok' }])
      t.equal((await node.broker.history!('a', { limit: 1, bytes: 1_000, retention })).messages.length, 1)
      t.equal(await node.broker.control('*', Buffer.from('x')), 'gone')
      await node.broker.close()
    }
  })

  t.test('a user that may not run INFO any more publishes to a topic of another run', async t => {
    await server.command('ACL', 'SETUSER', 'later', 'on', '>secret', '~later:*', '&later:*', ...rights)
    const node = await startNode(t, server.port, { client: clientOf(server.port, { username: 'later', password: 'secret' }), prefix: 'later' })
    await node.publish('a', 1)
    const [key] = (await server.command('KEYS', 'later:*:m:a')).match(/later:\S+/)!
    await server.command('HSET', key, 'g', 'another')
    await server.command('ACL', 'SETUSER', 'later', '-info')
    t.match(await node.publish('a', 2), [{ state: 'ok', position: { offset: 2 } }])
  })

  t.test('a user without a right is refused at the start, by the right', async t => {
    await server.command('ACL', 'SETUSER', 'few', 'on', '>secret', '~*', '&other:*', ...rights)
    await t.rejects(startNode(t, server.port, { client: clientOf(server.port, { username: 'few', password: 'secret' }) }), { code: 'FST_ROOMS_BROKER_UNSUITABLE', message: /NOPERM/ })
  })

  t.test('a topic of a channel that the user may not have is refused, and others are not', async t => {
    await server.command('ACL', 'SETUSER', 'some', 'on', '>secret', '~some:*', '&some:*:n*', '&some:*:c:a', ...rights)
    const node = await startNode(t, server.port, { client: clientOf(server.port, { username: 'some', password: 'secret' }), prefix: 'some' })
    await t.rejects(node.broker.attach(['b'], retention), { name: 'RedisAnswerError', word: 'NOPERM' })
    t.match(await node.broker.attach(['a'], retention), [{ offset: 0 }])
    t.match(await node.publish('b', 1, { retention: undefined }), [{ state: 'failed' }])
    t.equal(node.broker.stats!().topics, 1)
  })

  t.test('a server without memory refuses what is to be kept, and the state tells it', async t => {
    const node = await startNode(t, server.port, { prefix: 'oom' })
    await node.broker.attach(['a'], retention)
    await server.command('CONFIG', 'SET', 'maxmemory', '1')
    t.match(await node.publish('a', 1), [{ state: 'failed' }])
    t.match([node.states.at(-1), node.causes.at(-1)], ['degraded', { message: /OOM/ }])
    t.match(node.broker.stats!(), { queued: 0, queuedBytes: 0, reconnects: 0 })
    await server.command('CONFIG', 'SET', 'maxmemory', '0')
    t.match(await node.publish('a', 2), [{ state: 'ok', position: { offset: 1 } }])
    await until(() => node.states.at(-1) === 'up')
    t.same([node.states, node.entries], [['up', 'degraded', 'up'], ['a 2']])
  })

  t.test('a node that starts while the server has no memory is degraded until it has some', async t => {
    await server.command('CONFIG', 'SET', 'maxmemory', '1')
    const node = await startNode(t, server.port, { prefix: 'full' })
    await until(() => false, 1_500)
    t.match([node.states, node.causes], [['degraded'], [{ message: /OOM/ }]])
    await node.broker.attach(['plain'])
    t.match(await node.publish('plain', 1, { retention: undefined }), [{ state: 'ok' }])
    await server.command('CONFIG', 'SET', 'maxmemory', '0')
    await until(() => node.states.at(-1) === 'up')
    t.same(node.states, ['degraded', 'up'])
  })

  t.test('a server that is busy with a script holds publications and joins', async t => {
    const node = await startNode(t, server.port, { prefix: 'busy' })
    await node.broker.attach(['a'], retention)
    await server.command('CONFIG', 'SET', 'busy-reply-threshold', '1')
    const client = clientOf(server.port)
    t.teardown(() => { client.disconnect() })
    const endless = client.eval('while true do end', 0).catch(() => {})
    await until(() => false, 50)
    const published = node.publish('a', 1)
    const attached = node.broker.attach(['b'], retention)
    await until(() => node.states.at(-1) === 'degraded')
    t.match(node.causes.at(-1), { message: /BUSY/ })
    await server.command('SCRIPT', 'KILL')
    await endless
    t.match(await published, [{ state: 'ok' }])
    t.match(await attached, [{ offset: 0 }])
    await until(() => node.states.at(-1) === 'up')
    t.same(node.states, ['up', 'degraded', 'up'])
  })

  t.test('keys of another type are another program\'s: publications fail, and nothing breaks', async t => {
    const node = await startNode(t, server.port, { prefix: 'clash', partitions: 1 })
    await node.broker.attach(['a'], retention)
    const [key] = (await server.command('KEYS', 'clash:*:m:a')).match(/clash:\S+/)!
    await server.command('DEL', key)
    await server.command('SET', key, 'x')
    t.match(await node.publish('a', 1), [{ state: 'failed' }])
    await t.rejects(async () => node.broker.history!('a', { limit: 1, bytes: 1, retention }), { message: /WRONGTYPE/ })
    await t.rejects(node.broker.attach(['a'], retention), { message: /WRONGTYPE/ })
  })

  t.test('bytes that cannot be read are counted, and told as a loss if they have a position', async t => {
    const node = await startNode(t, server.port, { prefix: 'bytes', partitions: 1 })
    const [position] = await node.broker.attach(['a', 'plain'], retention)
    await node.publish('a', 1)
    const channels = (await server.command('PUBSUB', 'CHANNELS', 'bytes:*')).match(/bytes:\S+/g)!
    const channel = channels.find(name => name.endsWith(':c:a'))!
    const control = channels.find(name => name.includes(':n'))!
    const frame = Buffer.alloc(20)
    frame.writeUInt32BE(20, 0)
    frame[8] = 2
    const later = Buffer.concat([Buffer.from(`1${position!.epoch}:2:`), frame])
    const client = clientOf(server.port)
    t.teardown(() => { client.disconnect() })
    for (const bytes of [Buffer.from('2x'), Buffer.from('1::short'), Buffer.concat([Buffer.from('1::'), frame]), later]) await client.publish(channel, bytes)
    await client.publish(control, 'c')
    await until(() => node.broker.stats!().unreadable === 5)
    t.equal(node.broker.stats!().unreadable, 5)
    t.same(node.lost, [['a'], ['a']])
    t.match(node.causes.slice(1).map(cause => [(cause as any).code, cause!.message]), [
      ['FST_ROOMS_BROKER_UNREADABLE', /a message of topic "a"/], ['FST_ROOMS_BROKER_UNREADABLE', /a publication of topic "a"/], ['FST_ROOMS_BROKER_UNREADABLE', /a message between nodes/]
    ])
    t.same(node.states, ['up', 'up', 'up', 'up'], 'each kind is told once, and changes no state')
    t.match(await node.publish('a', 2), [{ state: 'ok', position: { offset: 2 } }])
  })

  t.test('a server that became a replica is left', async t => {
    const other = await startRedis(t)
    const node = await startNode(t, server.port, { prefix: 'replica' })
    await server.command('REPLICAOF', '127.0.0.1', String(other.port))
    await until(() => node.states.at(-1) === 'down')
    t.match(node.causes.at(-1), { message: /READONLY/ })
    await until(() => false, 1_000)
    t.same(node.states, ['up', 'down'], 'as long as it is one')
    await server.command('REPLICAOF', 'NO', 'ONE')
    await until(() => node.states.at(-1) === 'up')
    t.same(node.states, ['up', 'down', 'up'])
  })
})
