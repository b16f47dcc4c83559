import { fileURLToPath } from 'node:url'
import createError from '@fastify/error'
import fastifyStatic from '@fastify/static'
import { Value } from '@sinclair/typebox/value'
import Fastify from 'fastify'
import fastifyRooms, { type Session } from 'fastify-rooms'
import { maxRecords, Name, StatisticRecord, topics, type Statistic } from './topics.ts'

const InvalidName = createError('INVALID_NAME', 'a name has 1 to 32 characters', 400)
const NoSuchQuote = createError<[string]>('NO_SUCH_QUOTE', 'there are no numbers for "%s" yet', 404)
const NoSuchCommand = createError<[string]>('NO_SUCH_COMMAND', 'there is no command "%s"; try /quote and the name of a number', 400)

const { HOST = '127.0.0.1', PORT = '3000', LOG_LEVEL = 'warn' } = process.env
const app = Fastify({ logger: { level: LOG_LEVEL } })

// The page: plain files, no build step. The policy holds it to its promise to load nothing from other hosts.
await app.register(fastifyStatic, {
  root: fileURLToPath(new URL('page', import.meta.url)),
  setHeaders (reply) { reply.header('content-security-policy', "default-src 'self'") }
})

await app.register(fastifyRooms, {
  topics,

  // The contract of the topics, as a page at /asyncapi, and as JSON and YAML below it.
  asyncapi: { info: { title: 'The example of fastify-rooms', version: '1.0.0' } },

  // A member is known by the name that it gives. A real application would look up a session or a token here.
  identify (request) {
    const { name } = request.query as { name?: unknown }
    if (name === undefined) return null
    if (!Value.Check(Name, name)) throw new InvalidName()
    return { user: name, info: { name } }
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
      const { id, info, topic } = session
      await session.rooms.broadcast(topic, { session: id, name: info!.name, text, at: new Date().toISOString() })
    }
  }
})

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

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    // The plugin closes its members. A browser's spare connection, which has sent no request, would hold the server open for a minute.
    setTimeout(() => { app.server.closeAllConnections() }, 2_000).unref()
    app.close()
  })
}

console.log(await app.listen({ host: HOST, port: Number(PORT) }))
