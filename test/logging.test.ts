import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { GuardedLog } from '../lib/hub/guarded-log.ts'
import fastifyRooms, { memoryBroker } from '../lib/index.ts'
import type { Broker, BrokerHandlers } from '../types/index.ts'
import { connect, join, listen, until, type LogLine } from './helpers/app.ts'

const broken = (): never => { throw new Error('the logger is broken') }

/** A memory broker, and the handlers that the hub gave it. */
function createBroker (): { broker: Broker, handlers: () => BrokerHandlers } {
  const broker = memoryBroker()
  let given!: BrokerHandlers
  const start = broker.start.bind(broker)
  broker.start = (node, handlers) => {
    given = handlers
    return start(node, handlers)
  }
  return { broker, handlers: () => given }
}

const loggers: Record<string, (logs: LogLine[]) => any> = {
  'a serializer of a member that the plugin logs': logs => ({ level: 'debug', stream: streamTo(logs), serializers: { session: (session: any) => session.request.id, topic: broken, state: broken } }),
  'a serializer of errors': logs => ({ level: 'debug', stream: streamTo(logs), serializers: { err: broken, session: broken, state: broken } }),
  'a formatter': logs => ({ level: 'debug', stream: streamTo(logs), formatters: { log: (line: object) => 'session' in line || 'state' in line || 'topic' in line || 'address' in line ? broken() : line } })
}

function streamTo (logs: LogLine[]) {
  return { write: (line: string) => { logs.push(JSON.parse(line)) } }
}

function watchProcess (t: Test): unknown[] {
  const stray: unknown[] = []
  const hear = (error: unknown): void => { stray.push(error) }
  for (const event of ['unhandledRejection', 'uncaughtException'] as const) {
    process.on(event, hear)
    t.teardown(() => { process.removeListener(event, hear) })
  }
  return stray
}

async function lives (t: Test, app: FastifyInstance, handlers: () => BrokerHandlers): Promise<void> {
  const stray = watchProcess(t)
  const url = await listen(app)
  const one = await join(t, `${url}/rooms/news`)
  const two = await join(t, `${url}/rooms/news`)
  t.match(await two.ask({ type: 'message', data: 'fail' }), { ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' } })
  // Invalid UTF-8 causes a connection error.
  const three = await join(t, `${url}/rooms/news`);
  (three.socket as any)._socket.write(Buffer.from([0x81, 0x81, 0, 0, 0, 0, 0xff]))
  t.equal((await three.closed).code, 1007)
  handlers().state('down', new Error('gone'))
  t.equal(app.rooms.health().broker, 'down')
  handlers().state('up')
  t.equal(app.rooms.health().broker, 'up')
  await two.close()
  t.match(await one.ask({ type: 'message', data: 'works' }), { ok: true })
  await one.close()
  await until(() => app.rooms.stats().connections === 0)
  t.match(app.rooms.stats(), { members: 0, topics: 0, errors: 1, joined: 3 })
  t.same(stray, [])
}

const options = (broker: Broker) => ({
  prefix: '/rooms',
  broker,
  onMessage: { '*': (_session: unknown, payload: unknown) => { if (payload === 'fail') throw new Error('oops') } }
})

for (const [name, create] of Object.entries(loggers)) {
  t.test(`issue 8: ${name} that throws breaks no join, leave or broker state; each line is logged without the serializer`, async t => {
    const logs: LogLine[] = []
    const app = Fastify({ logger: create(logs) }) as unknown as FastifyInstance
    t.teardown(() => app.close())
    const { broker, handlers } = createBroker()
    await app.register(fastifyRooms as any, options(broker))
    await lives(t, app, handlers)
    for (const [msg, count] of Object.entries({ 'member joined': 3, 'member left': 3, 'the broker is up': 1, 'the broker is up again': 1, 'a hook of fastify-rooms failed': 1, 'connection error': 1 })) {
      t.equal(logs.filter(line => line.msg === msg).length, count, msg)
    }
    const joined = logs.find(({ msg }) => msg === 'member joined') as any
    t.match(joined, { level: 30, members: { topic: 'news', address: '127.0.0.1' }, fault: /^(?:the logger is broken|Cannot read)/ })
    t.match(joined.members.session, /^[\da-f-]{36}$/)
    t.match(logs.find(({ msg }) => msg === 'a hook of fastify-rooms failed'), { level: 50, members: { err: 'oops', topic: 'news' } })
    t.equal(logs.filter(({ msg }) => msg.startsWith('the broker is down: ')).length, 1)
    t.ok(logs.some(({ msg }) => msg.startsWith('fastify-rooms is an open lobby')))
  })
}

t.test('issue 8: a logger of the host that throws at each call breaks nothing, and the process emits one warning', async t => {
  const warnings: Error[] = []
  const hear = (warning: Error): void => { warnings.push(warning) }
  process.on('warning', hear)
  t.teardown(() => { process.removeListener('warning', hear) })
  let isBroken = false
  const say = (): void => { if (isBroken) broken() }
  const quiet: any = { level: 'debug', fatal () {}, error () {}, warn () {}, info () {}, debug () {}, trace () {}, child: () => quiet }
  // The first child belongs to the app, others belong to requests.
  const logger: any = { ...quiet, error: say, warn: say, info: say, debug: say, child: () => { logger.child = () => quiet; return logger } }
  const app = Fastify({ loggerInstance: logger }) as unknown as FastifyInstance
  t.teardown(() => {
    isBroken = false
    return app.close()
  })
  const { broker, handlers } = createBroker()
  await app.register(fastifyRooms as any, options(broker))
  await listenQuietly(app, () => { isBroken = true })
  await lives(t, app, handlers)
  await until(() => warnings.length > 0)
  t.match(warnings, [{ message: 'fastify-rooms cannot log: the logger is broken' }])
  t.equal(warnings.length, 1)
})

/** Calls `then` after Fastify has logged its address. */
async function listenQuietly (app: FastifyInstance, then: () => void): Promise<void> {
  const listen = app.listen.bind(app) as (...given: unknown[]) => Promise<string>
  app.listen = (async (...given: unknown[]) => {
    const address = await listen(...given)
    then()
    return address
  }) as never
}

t.test('an open lobby starts with a logger that cannot write the warning', async t => {
  const app = Fastify({ logger: { level: 'warn', stream: { write () {} }, formatters: { log: broken } } }) as unknown as FastifyInstance
  t.teardown(() => app.close())
  await app.register(fastifyRooms as any, { prefix: '/rooms' })
  await app.ready()
  const client = await connect(t, `${await listen(app)}/rooms/news`)
  t.match(await client.next(), { type: 'hello' })
})

t.test('a line without errors is written unchanged, and once', async t => {
  const lines: unknown[] = []
  const write = (level: string) => (object: object, message: string): void => { lines.push([level, object, message]) }
  const log = new GuardedLog({ debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') })
  const given = { session: '1', err: new Error('x') }
  for (const level of ['debug', 'info', 'warn', 'error'] as const) {
    log[level](given, 'constant')
    t.equal((lines.at(-1) as unknown[])[1], given)
  }
  t.same(lines, ['debug', 'info', 'warn', 'error'].map(level => [level, given, 'constant']))
})
