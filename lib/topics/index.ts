/**
 * `fastify-rooms/topics`: declares topics in a module that server and browser share. Imports nothing, so that a bundle of such a module holds its schemas and no
 * server. Topics are checked when the server registers them.
 */

// A star, because `declare module 'fastify-rooms/topics' { interface Register { … } }` reaches only an interface that is exported by a star.
export type * from '../../types/topics.ts'
export { defineTopics } from './define.ts'
