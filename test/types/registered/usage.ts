/** Right and wrong code of a host. Compiled against the sources and against the build. */
import type { FastifyInstance } from 'fastify'
import fastifyRooms, { type Message, type Publish, type Rooms, type TopicName } from 'fastify-rooms'
import { topics } from './topics.ts'

export async function right (app: FastifyInstance, name: string): Promise<void> {
  await app.register(fastifyRooms, {
    prefix: '/rooms',
    topics,
    authorize: ({ topic }) => topic !== 'chat:admin',
    onMessage: {
      'chat:*': async (session, { text }) => session.rooms.broadcast(session.topic, { text, user: session.user ?? 'anonymous' })
    }
  })
  await app.rooms.broadcast('dailyNews', [{ name: 'visits', value: 3 }])
  await app.rooms.broadcast('chat:42', { text: 'x', user: 'u1' })
  await app.rooms.broadcast('chat:admin', 1)
  const known: TopicName[] = await app.rooms.topics()
  if (app.rooms.has(name)) known.push(name)
  app.post('/', async request => { request.rooms.broadcast('chat:admin', 1) })
  for await (const { text } of app.rooms.subscribe('chat:42')) text.toUpperCase()
}

export async function wrong (app: FastifyInstance, rooms: Rooms, name: string): Promise<void> {
  // @ts-expect-error onMessage is missing
  await app.register(fastifyRooms, { topics })
  // @ts-expect-error weather is not a topic
  await app.rooms.broadcast('weather', {})
  // @ts-expect-error nme
  await app.rooms.broadcast('dailyNews', [{ nme: 'visits', value: 3 }])
  // @ts-expect-error user is missing
  await rooms.broadcast('chat:42', { text: 'x' })
  // @ts-expect-error name may be any string
  await app.rooms.count(name)
  // @ts-expect-error no number
  app.post('/', async request => { request.rooms.broadcast('chat:admin', 'x') })
}

export const message: Message<'chat:42'> = { text: 'x', user: 'u1' }
export const draft: Publish<'chat:42'> = { text: 'x' }
