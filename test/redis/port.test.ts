import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { RedisAnswerError } from '../../lib/redis/answer-error.ts'
import { portOf } from '../../lib/redis/port.ts'
import type { RedisConnection, RedisConnectionEvents } from '../../types/redis.ts'
import { clients } from '../helpers/redis-clients.ts'
import { noRedis, startRedis } from '../helpers/redis-server.ts'

function events (): RedisConnectionEvents & { messages: [string, string][], errors: Error[] } {
  const messages: [string, string][] = []
  const errors: Error[] = []
  return { messages, errors, message: (channel, bytes) => { messages.push([channel, bytes.toString('latin1')]) }, closed: error => { errors.push(error) }, moved: () => {} }
}

async function soon (holds: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !holds(); i++) await new Promise(resolve => setTimeout(resolve, 10))
}

for (const [name, create] of Object.entries(clients)) {
  t.test(`a port for ${name}`, { skip: noRedis }, async t => {
    const server = await startRedis(t)
    const port = portOf(create(server.port))
    t.teardown(() => { port.close() })
    t.same([port.isCluster, await port.shards()], [false, [{ id: '', slots: [[0, 16_383]] }]])
    const open = async (t: Test, on = events()): Promise<RedisConnection> => {
      const connection = await port.connect('', on)
      t.teardown(() => { connection.close() })
      return connection
    }

    t.test('answers come in order, strings as Buffers, numbers as numbers, errors as errors', async t => {
      const connection = await open(t)
      const bytes = Buffer.from([0, 255, 13, 10])
      const answers = await Promise.allSettled(connection.send([['SET', 'key', bytes], ['GET', 'key'], ['INCR', 'number'], ['INCR', 'key'], ['GET', 'none'], ['MGET', 'key', 'none'], ['EVAL', 'return {1, "a", redis.error_reply("OOM none")}', '0']]))
      t.same(answers.map(answer => answer.status), ['fulfilled', 'fulfilled', 'fulfilled', 'rejected', 'fulfilled', 'fulfilled', answers[6]!.status])
      t.same(answers.map(answer => answer.status === 'fulfilled' ? answer.value : undefined).slice(1, 6), [bytes, 1, undefined, null, [bytes, null]])
      const { reason } = answers[3] as PromiseRejectedResult
      t.type(reason, RedisAnswerError)
      t.match(reason, { word: 'ERR', message: /not an integer/ })
      await t.rejects(connection.send([['EVAL', 'return redis.error_reply("NOSCRIPT none")', '0']])[0]!, { name: 'RedisAnswerError', word: 'NOSCRIPT' })
      t.match(await server.command('EXISTS', 'key'), ':1', 'the prefix of the host is not in the key')
    })

    t.test('messages of subscribed channels arrive, as bytes', async t => {
      const on = events()
      const subscriber = await open(t, on)
      const publisher = await open(t)
      await subscriber.subscribe(['a', 'b'])
      await subscriber.unsubscribe(['a'])
      await Promise.all(publisher.send([['PUBLISH', 'a', '1'], ['PUBLISH', 'b', Buffer.from([0, 255])]]))
      await soon(() => on.messages.length > 0)
      t.same(on.messages, [['b', '\0ÿ']])
    })

    t.test('a cut is told once, answers that were to come reject, and nothing is sent again', async t => {
      const on = events()
      const connection = await open(t, on)
      await connection.subscribe(['c'])
      const other = await open(t)
      const waiting = connection.send([['EVAL', 'redis.call("INCR", "runs"); for i = 1, 3e7 do end', '0']])[0]!
      const refused = waiting.then(() => undefined, (error: unknown) => error)
      server.suspend()
      await new Promise(resolve => setTimeout(resolve, 20))
      await server.kill()
      const error = await refused
      t.ok(error instanceof Error && !(error instanceof RedisAnswerError), 'it is no answer of the server')
      await soon(() => on.errors.length > 0)
      t.equal(on.errors.length, 1)
      await t.rejects(connection.send([['PING']])[0]!)
      await t.rejects(port.connect('', events()), { message: /ECONNREFUSED/ })
      await server.restart()
      await t.rejects(other.send([['PING']])[0]!, 'a connection does not come back')
      t.match(await server.command('EXISTS', 'runs'), ':0')
      t.equal(on.errors.length, 1)
    })

    t.test('a connection that the broker closes is not told', async t => {
      const on = events()
      const connection = await open(t, on)
      connection.close()
      connection.close()
      await new Promise(resolve => setTimeout(resolve, 30))
      t.same(on.errors, [])
    })

    t.test('wrong credentials reject', async t => {
      await server.command('CONFIG', 'SET', 'requirepass', 'secret')
      await t.rejects((async () => {
        const connection = await port.connect('', events())
        t.teardown(() => { connection.close() })
        await connection.send([['GET', 'key']])[0]
      })(), { name: 'RedisAnswerError', word: 'NOAUTH' })
    })
  })
}

t.test('a server that closes a connection at once is told as a failed attempt', async t => {
  const server = createServer(socket => { socket.end() }).listen(0, '127.0.0.1')
  t.teardown(() => { server.close() })
  await once(server, 'listening')
  for (const [name, create] of Object.entries(clients)) {
    const on = events()
    await t.rejects(portOf(create((server.address() as AddressInfo).port)).connect('', on), { message: /clos/i }, name)
    t.same(on.errors, [], name)
  }
})

t.test('an object that is not a client is refused by name', async t => {
  const given: [unknown, RegExp][] = [[undefined, /nothing/], [null, /null/], ['redis://:secret@127.0.0.1', /got a string$/], [() => {}, /got a function$/], [{}, /another object/], [new Map(), /a Map/], [{ duplicate: () => {}, defineCommand: () => {} }, /older client of ioredis/], [{ duplicate: () => {}, sSubscribe: () => {} }, /older client of node-redis/]]
  for (const [client, message] of given) t.throws(() => portOf(client as never), { code: 'FST_ROOMS_INVALID_OPTION', message })
})

t.test('a RedisPort is taken as it is', async t => {
  const port = { isCluster: false, shards: async () => [], connect: async () => { throw new Error('none') }, close: () => {} }
  t.equal(portOf(port), port)
})
