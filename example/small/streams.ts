// A member's messages as a stream: with a loop, or in a pipeline with back-pressure from end to end.
//
//   npx wscat -c ws://127.0.0.1:3000/rooms/sum       {"type":"message","data":2}
//   npx wscat -c ws://127.0.0.1:3000/rooms/shout     {"type":"message","data":"hello"}
import { Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import Fastify from 'fastify'
import fastifyRooms, { type Session } from 'fastify-rooms'

/** Takes numbers until the member leaves or says "done", and answers each with the sum so far. */
async function sum (session: Session): Promise<void> {
  let total = 0
  for await (const payload of session) {
    if (payload === 'done') break // leaving the loop closes the session
    if (typeof payload === 'number') await session.send(total += payload)
  }
}

/** Takes text, ignores everything else, and sends it back louder. */
async function shout (session: Session): Promise<void> {
  const louder = new Transform({
    objectMode: true,
    transform (payload, _encoding, done) {
      if (typeof payload === 'string') this.push(payload.toUpperCase())
      done()
    }
  })
  await pipeline(session.readable, louder, session.writable)
}

const app = Fastify()
await app.register(fastifyRooms, {
  prefix: '/rooms',
  async onJoin (session) {
    if (session.topic === 'sum') await sum(session)
    if (session.topic === 'shout') await shout(session)
  }
})

const { HOST = '127.0.0.1', PORT = '3000' } = process.env
console.log(await app.listen({ host: HOST, port: Number(PORT) }))
