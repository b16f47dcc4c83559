/** Programs of a user, in TypeScript, and the expected errors of the compiler. */
export const topics = `
import { Type } from '@sinclair/typebox'
import { defineTopics } from 'fastify-rooms'

export const topics = defineTopics({
  news: { message: Type.Object({ title: Type.String() }) },
  'chat:*': { message: Type.Object({ text: Type.String() }), publish: true }
})

declare module 'fastify-rooms' { interface Register { topics: typeof topics } }
`

export const app = `
import Fastify, { type FastifyInstance, type FastifyRequest } from 'fastify'
import fastifyRooms, { closeCodes, errorCodes, fastifyRooms as named, memoryBroker, type RoomsOptions, type Session } from 'fastify-rooms'
import { roomsMetrics, type MetricsRegistry } from 'fastify-rooms/metrics'
import { topics } from './topics.js'

export const remove = (app: FastifyInstance, registry: MetricsRegistry): () => void => roomsMetrics(app.rooms, { registry, topics: ['news', 'chat:*'] })

const options: RoomsOptions = {
  topics,
  prefix: '/rooms',
  broker: memoryBroker(),
  websocket: { options: { perMessageDeflate: false } },
  identify: (request: FastifyRequest) => ({ user: request.headers.authorization ?? 'nobody' }),
  onMessage: { 'chat:*': (session: Session<'chat:*'>, payload) => session.rooms.broadcast(session.topic, { text: payload.text.toUpperCase() }) }
}

async function main (): Promise<void> {
  const app = Fastify()
  await app.register(fastifyRooms, options)
  const client = await app.rooms.inject('/rooms/chat:1')
  await client.next('hello')
  const { local } = await app.rooms.broadcast('chat:1', { text: 'one' })
  const { data } = await client.next('message')
  await client.close()
  await app.close()
  console.log(JSON.stringify({ data, local, same: named === fastifyRooms, close: closeCodes[4102], error: new errorCodes.FST_ROOMS_CLOSED().code }))
}
main()
`

/** A program that imports each entry, and names each of its exports that exists at run time. The main entry is that of `app`. */
export function everything (names: Record<string, string[]>): string {
  const parts = Object.entries(names).filter(([entry]) => entry !== 'fastify-rooms')
  return [
    ...parts.map(([entry], index) => `import * as entry${index} from '${entry}'`),
    ...parts.map(([, exported], index) => `export const names${index}: (keyof typeof entry${index})[] = ${JSON.stringify(exported)}`)
  ].join('\n')
}

// One mistake a line; the test expects an error of the compiler for each.
export const wrong = `
import type { FastifyInstance } from 'fastify'
import fastifyRooms from 'fastify-rooms'
import { roomsMetrics, type MetricsRegistry } from 'fastify-rooms/metrics'

export async function wrong (app: FastifyInstance, registry: MetricsRegistry): Promise<void> {
  await app.rooms.broadcast('news', { titel: 'misspelt' })
  await app.rooms.broadcast('news', { title: 1 })
  await app.rooms.broadcast('weather', {})
  await app.rooms.broadcast('chat:1', { title: 'of another topic' })
  await app.register(fastifyRooms, { onMessage: { news: () => {} } })
  roomsMetrics(app.rooms, { registry, topics: ['chat:1'] })
}
`

export const wrongs = ['wrong.ts:7 TS2561', 'wrong.ts:8 TS2322', 'wrong.ts:9 TS2345', 'wrong.ts:10 TS2353', 'wrong.ts:11 TS2769', 'wrong.ts:12 TS2820']

/** The errors of a compiler, as file, line and code. */
export const faults = (stdout: string): string[] => stdout.split('\n').filter(line => /^\S/.test(line)).map(line => line.replace(/^.*?([\w.-]+)\((\d+),\d+\): error (TS\d+): .*$/, '$1:$2 $3'))

export const required = `
import fastifyRooms = require('fastify-rooms')
const { defineTopics } = fastifyRooms
const topics: object = defineTopics({ news: {} })
console.log(JSON.stringify({ topics: Object.keys(topics), same: fastifyRooms.default === fastifyRooms.fastifyRooms }))
`

// CommonJS files of node16 and node18: the first is refused, the second works.
export const eager = `
import fastifyRooms from 'fastify-rooms'
export const name: string = fastifyRooms.name
`

export const lazy = `
import fastify from 'fastify'
import type { Session } from 'fastify-rooms' with { 'resolution-mode': 'import' }

export const topicOf = (session: Session<string>): string => session.topic

async function main (): Promise<void> {
  const { default: fastifyRooms } = await import('fastify-rooms')
  const app = fastify()
  await app.register(fastifyRooms, { prefix: '/rooms' })
  await app.close()
  console.log(JSON.stringify({ data: { text: 'one' } }))
}
main()
`

/** A module of topics that a server and a page share. */
export const sharedTopics = `
import { Type } from '@sinclair/typebox'
import { defineTopics } from 'fastify-rooms/topics'

export const topics = defineTopics({
  news: { message: Type.Object({ title: Type.String() }) },
  'chat:*': { message: Type.Object({ user: Type.String(), text: Type.String() }), publish: Type.Object({ text: Type.String() }), history: true },
  'answer:*': { message: Type.String(), stream: true }
})

declare module 'fastify-rooms/topics' { interface Register { topics: typeof topics } }
`

/** A page with a client of these topics, of which it imports the types alone. */
export const clientPage = `
import { createClient } from 'fastify-rooms/client'
import type { topics } from './topics.ts'

const room = createClient<typeof topics>({ url: '/rooms' }).room('chat:1')
room.on('message', ({ data }) => { document.title = data.text })
void room.publish({ text: 'hi' })
// @ts-expect-error
void room.publish({ title: 'of another topic' })
// @ts-expect-error
room.on('message', ({ data }) => { document.title = data.title })
`

/** A page that uses the types of the protocol and of the topics. Each expected error is one that the types of Node.js would remove. */
export const page = `
import { closeBehaviour, closeCodes, closeName, formatPosition, isTopicName, modes, parsePosition, type ByeFrame, type ClientFrame, type CloseCode, type Position, type ServerFrame } from 'fastify-rooms/protocol'
import type { Message, Publish, TopicName } from 'fastify-rooms/topics'
import { topics } from './topics.ts'

const socket = new WebSocket('/rooms/chat:1', [...modes])
socket.onmessage = ({ data }) => {
  const frame = JSON.parse(String(data)) as ServerFrame
  if (frame.type === 'message') document.title = (frame.data as Message<'news'>).title
  if (frame.type === 'bye') again(frame)
}

function again ({ code, id }: ByeFrame): void {
  const position: Position | null = id === undefined ? null : parsePosition(id)
  if (closeBehaviour(code) !== 'stop' && position !== null) console.log(closeName(code), closeCodes[4102], formatPosition(position))
}

const name: TopicName = isTopicName('chat:1') ? 'chat:1' : 'news'
const said: Publish<'chat:1'> = { text: 'hi' }
const frame: ClientFrame = { type: 'message', data: said }
const code: CloseCode = 4005
export const used = [name, frame, code, Object.keys(topics), setTimeout(() => {}) satisfies number]

// @ts-expect-error
export const other: TopicName = 'weather'
// @ts-expect-error
export const environment = process.env
// @ts-expect-error
export const bytes = Buffer.from('')
// @ts-expect-error
setTimeout(() => {}).unref()
`
