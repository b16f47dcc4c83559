// The package under test with its defaults: validation of a typed topic, heartbeat, back-pressure, stats.
import Fastify from 'fastify'
import { forkWorkers, host, isPrimary, ready, schema, setup } from './control.js'

const clusterEntry = () => import(new URL('cluster/index.js', process.env.BENCH_PACKAGE).href)

async function serve () {
  const { default: fastifyRooms, defineTopics } = await import(process.env.BENCH_PACKAGE)
  const app = Fastify()

  let broker
  if (setup.redis !== undefined) {
    const { redisBroker } = await import(new URL('redis/index.js', process.env.BENCH_PACKAGE).href)
    const { Redis } = await import('ioredis')
    broker = redisBroker({ client: new Redis(setup.redis, host) })
  } else if (setup.workers !== undefined) {
    const { clusterBroker } = await clusterEntry()
    broker = clusterBroker()
  }

  await app.register(fastifyRooms, {
    prefix: '/r',
    ...(broker === undefined ? {} : { broker }),
    ...(setup.lobby === true
      ? {}
      : {
          topics: defineTopics({
            // The bound is low, so that members that have stopped reading are behind before the measurement.
            'room:*': { message: schema, publish: true, ...(setup.history === undefined ? {} : { history: { size: setup.history } }), ...(setup.slow === undefined ? {} : { slow: { policy: setup.slow, bytes: 65_536 } }) },
            ...(setup.post === true ? { news: { message: schema, post: true } } : {})
          })
        }),
    // The rate limit is checked, but never met, because publishers are to find the limit of the server.
    limits: { messages: 1_000_000 },
    ...(setup.post === true ? { authorize: () => true } : {}),
    ...(setup.deflate === true ? { websocket: { options: { perMessageDeflate: true } } } : {}),
    ...(setup.drain === undefined ? {} : { drain: setup.drain }),
    ...(setup.except === true
      ? {
          onMessage: {
            'room:*': async (session, message) => { await session.rooms.broadcast(session.topic, message, { except: session.id }) }
          }
        }
      : {})
  })

  await app.listen({ host, port: 0, exclusive: true })
  ready(app.server.address().port, (room, message) => app.rooms.broadcast(room, message), () => app.rooms.drain(), () => app.rooms.stats().waiting)
}

if (isPrimary) {
  const { clusterPrimary } = await clusterEntry()
  clusterPrimary()
  forkWorkers()
} else {
  await serve()
}
