import type { FastifyInstance } from 'fastify'
import type { RoomsOptions } from './options.ts'
import type { RequestRooms, Rooms } from './rooms.ts'
import type { TopicMap } from './topics.ts'

/** The plugin function for `app.register`. `fastifyRooms<typeof other>` types a second app in one program. */
export interface RoomsPlugin {
  <T extends TopicMap>(app: FastifyInstance, options: RoomsOptions<T>): Promise<void>
  // The last overload, because `register` infers its options from that.
  (app: FastifyInstance, options: RoomsOptions): Promise<void>
}

declare module 'fastify' {
  interface FastifyInstance { rooms: Rooms }
  interface FastifyRequest { rooms: RequestRooms }
}
