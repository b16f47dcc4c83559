import fp from 'fastify-plugin'
import type { RoomsPlugin } from '../types/index.ts'
import { memoryBroker } from './brokers/memory.ts'
import * as codes from './errors.ts'
import { bearerToken } from './identity/bearer-token.ts'
import { rooms } from './plugin.ts'
import { closeBehaviour, closeCodes } from './protocol/close-codes.ts'
import { defineTopics } from './topics/define.ts'

export type * from '../types/index.ts'
export type { CloseBehaviour, CloseCode } from './protocol/close-codes.ts'
export { bearerToken, closeBehaviour, closeCodes, defineTopics, memoryBroker }

/** The error classes of this package by code, for `instanceof` and for lists of all codes. */
export const errorCodes: typeof codes = { ...codes }

/** The plugin. The other exports are members of it, because `require()` returns this function. */
export interface FastifyRooms extends RoomsPlugin {
  default: FastifyRooms
  fastifyRooms: FastifyRooms
  bearerToken: typeof bearerToken
  closeBehaviour: typeof closeBehaviour
  closeCodes: typeof closeCodes
  defineTopics: typeof defineTopics
  errorCodes: typeof errorCodes
  memoryBroker: typeof memoryBroker
}

/**
 * The plugin. Adds `GET /:topic` (WebSocket), broadcast routes, `app.rooms` and `request.rooms` to the scope that registers it.
 *
 * ```ts
 * await app.register(fastifyRooms, { prefix: '/rooms' })
 * await app.rooms.broadcast('news', { hello: 'world' })
 * ```
 */
export const fastifyRooms: FastifyRooms = fp(rooms, { fastify: '5.x', name: 'fastify-rooms' }) as unknown as FastifyRooms
Object.assign(fastifyRooms, { default: fastifyRooms, fastifyRooms, bearerToken, closeBehaviour, closeCodes, defineTopics, errorCodes, memoryBroker })

export default fastifyRooms
export { fastifyRooms as 'module.exports' }
