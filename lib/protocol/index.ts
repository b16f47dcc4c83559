/**
 * `fastify-rooms/protocol`: the parts of the wire protocol that an author of a client needs. Imports nothing of Node.js, Fastify or ws, types included.
 * docs/protocol.md gives the rules.
 */
export type * from '../../types/protocol.ts'
export type { CloseBehaviour, CloseCode } from './close-codes.ts'
export { closeBehaviour, closeCodes, closeName } from './close-codes.ts'
export { isKey, isMid, maxKeyLength, maxMidLength, minSharedMidLength } from './client-frames.ts'
export { defaultPage, maxPage } from './page-size.ts'
export { formatPosition, isSince, parsePosition } from './position.ts'
export { modes } from './subprotocols.ts'
export { isTopicName, maxTopicLength } from './topic-name.ts'
