import { randomUUID } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import createError from '@fastify/error'
import fastifyRedis from '@fastify/redis'
import fastifyStatic from '@fastify/static'
import { Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import Fastify, { type FastifyReply, type FastifyRequest } from 'fastify'
import fastifyRooms, { bearerToken, type Broker, type Session } from 'fastify-rooms'
import { redisBroker } from 'fastify-rooms/redis'
import { assistant } from './assistant.ts'
import { maxRecords, Name, StatisticRecord, topics, type Statistic } from './topics.ts'

const InvalidName = createError('INVALID_NAME', 'a name has 1 to 32 characters', 400)
const NoSuchQuote = createError<[string]>('NO_SUCH_QUOTE', 'there are no numbers for "%s" yet', 404)
const NoSuchCommand = createError<[string]>('NO_SUCH_COMMAND', 'there is no command "%s"; try /quote and the name of a number', 400)

const { HOST = '127.0.0.1', PORT = '3000', LOG_LEVEL = 'warn', REDIS_URL, TRUST_PROXY } = process.env
// Behind a balancer on another machine, its address or network: members count by their own addresses then.
const app = Fastify({ logger: { level: LOG_LEVEL }, ...(TRUST_PROXY === undefined ? {} : { trustProxy: TRUST_PROXY }) })

// With the URL of a Redis server this process is one node of a fleet. Nothing below differs.
let broker: Broker | undefined
if (REDIS_URL !== undefined) {
  await app.register(fastifyRedis, { url: REDIS_URL })
  broker = redisBroker({ client: app.redis })
}

// The page: plain files, no build step. The policy holds it to its promise to load nothing from other hosts.
const setHeaders = (reply: FastifyReply): void => { reply.header('content-security-policy', "default-src 'self'") }
await app.register(fastifyStatic, { root: fileURLToPath(new URL('page', import.meta.url)), setHeaders })

// The client, as the package has it: modules that browsers load. A bundler would make one file of them, and of the page.
await app.register(fastifyStatic, {
  root: fileURLToPath(new URL('..', import.meta.resolve('fastify-rooms/client'))),
  prefix: '/fastify-rooms/',
  allowedPath: path => /^\/(?:client|protocol)\/[\w-]+\.js$/.test(path),
  decorateReply: false,
  setHeaders
})

await app.register(fastifyRooms, {
  topics,
  ...(broker === undefined ? {} : { broker }),

  // The contract of the topics, as a page at /asyncapi, and as JSON and YAML below it.
  asyncapi: { info: { title: 'The example of fastify-rooms', version: '1.0.0' } },

  // One WebSocket carries all topics of a page.
  multiplex: '/rooms',

  identify (request) {
    const visitor = visitorOf(request)
    if (visitor === null) return null
    if (!Value.Check(Name, visitor.name)) throw new InvalidName()
    return { user: visitor.user, info: { name: visitor.name } }
  },

  // Everyone may listen and post numbers. Members with a name may also speak, and write privately within one room.
  authorize (context) {
    switch (context.action) {
      case 'publish':
      case 'presence': return context.session.user !== undefined
      case 'direct': return context.session.user !== undefined && context.target.topic === context.topic
      default: return true
    }
  },

  routes: {
    broadcast: {
      // Runs after the body was found valid, and before it is broadcast.
      async preHandler ({ body }) {
        for (const record of body as Statistic[]) record.at ??= new Date().toISOString()
      }
    }
  },

  onMessage: {
    async 'chat:*' (session, { text }) {
      if (text.startsWith('/')) return command(session, text)
      const { user, info, topic } = session
      await session.rooms.broadcast(topic, { user: user!, name: info!.name, text, at: new Date().toISOString() })
    }
  }
})

/**
 * A visitor is known by what it says of itself: the page has a token, `<user>.<name>`, and others give `?name=`. A real application would look up a session, or
 * verify a token.
 */
function visitorOf (request: FastifyRequest): { user: string, name: string } | null {
  const { name } = request.query as { name?: string }
  if (name !== undefined) return { user: name, name }
  const token = bearerToken(request)
  if (token === undefined) return null
  const [, user = '', encoded = ''] = /^([\w-]+)\.(.*)$/.exec(token) ?? []
  try {
    return { user, name: decodeURIComponent(encoded) }
  } catch {
    return { user, name: '' } // not a name
  }
}

/** `/quote visits` requests this server's own HTTP API, as it could any other, and broadcasts the result to the room. */
async function command (session: Session<'chat:*'>, text: string): Promise<void> {
  const name = /^\/quote\s+(.+)$/.exec(text.trim())?.[1]
  if (name === undefined) throw new NoSuchCommand(text.split(/\s/, 1)[0]!)
  const response = await fetch(`${app.listeningOrigin}/quotes/${encodeURIComponent(name)}`, {
    signal: AbortSignal.any([session.signal, AbortSignal.timeout(5_000)])
  })
  if (!response.ok) throw new NoSuchQuote(name)
  const { value, at } = await response.json() as Required<Statistic>
  await session.rooms.broadcast(session.topic, { name: 'quotes', text: `${name}: ${value}`, at })
}

app.get<{ Params: { name: string } }>('/quotes/:name', { schema: { response: { 200: StatisticRecord } } }, async (request) => {
  const { name } = request.params
  const { messages } = await app.rooms.history('dailyNews', { limit: maxRecords })
  const record = messages.flatMap(({ data }) => data).findLast(record => record.name === name)
  if (record === undefined) throw new NoSuchQuote(name)
  return record
})

// The assistant writes its answer into a topic of its own, with readers or without. The name of the topic is known to the page that has asked.
app.post<{ Body: { question: string } }>('/answers', {
  schema: { body: Type.Object({ question: Type.String({ minLength: 1, maxLength: 500, pattern: '\\S' }) }) }
}, async ({ body }) => {
  const { messages } = await app.rooms.history('dailyNews', { limit: maxRecords })
  const answer = await app.rooms.stream(`answer:${randomUUID()}`)
  await answer.write(`You have asked: “${body.question.trim()}” `)
  answer.pipe(assistant(messages.flatMap(({ data }) => data), answer.signal)) // not awaited: it outlives this request, and its errors go to the log
  return { topic: answer.topic }
})

app.post<{ Params: { id: string } }>('/answers/:id/stop', async ({ params: { id } }) => ({ stopped: await app.rooms.stop(`answer:${id}`) }))

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    // The plugin closes its members. A browser's spare connection, which has sent no request, would hold the server open for a minute.
    setTimeout(() => { app.server.closeAllConnections() }, 2_000).unref()
    app.close()
  })
}

console.log(await app.listen({ host: HOST, port: Number(PORT) }))
