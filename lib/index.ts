import fp from 'fastify-plugin'
import type { RoomsPlugin } from '../types/index.ts'
import { memoryBroker } from './brokers/memory.ts'
import * as errors from './errors.ts'
import { rooms } from './plugin.ts'
import { closeBehaviour, closeCodes } from './protocol/close-codes.ts'
import { defineTopics } from './topics.ts'

export type * from '../types/index.ts'
export type { CloseBehaviour, CloseCode } from './protocol/close-codes.ts'
export { closeBehaviour, closeCodes, defineTopics, memoryBroker }

const { asError, isClientError, wireError, ...codes } = errors

/** The errors of this package by code, for `instanceof` and for catalogues. */
export const errorCodes: typeof codes = codes

/**
 * Adds `GET /:topic` (WebSocket), broadcast routes, `app.rooms` and `request.rooms` to the scope that registers it.
 *
 * ```ts
 * await app.register(fastifyRooms, { prefix: '/rooms' })
 * await app.rooms.broadcast('news', { hello: 'world' })
 * ```
 */
export const fastifyRooms: RoomsPlugin = Object.assign(fp(rooms, { fastify: '5.x', name: 'fastify-rooms' }) as unknown as RoomsPlugin, {
  // For require(), which gets this function.
  closeBehaviour, closeCodes, defineTopics, errorCodes, memoryBroker
})
Object.assign(fastifyRooms, { default: fastifyRooms, fastifyRooms })

export default fastifyRooms
export { fastifyRooms as 'module.exports' }
