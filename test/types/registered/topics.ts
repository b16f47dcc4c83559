import { Type } from '@sinclair/typebox'
import { defineTopics } from 'fastify-rooms'

export const topics = defineTopics({
  dailyNews: { message: Type.Array(Type.Object({ name: Type.String(), value: Type.Number() })), post: '/dailyDashBoard' },
  'chat:*': {
    message: Type.Object({ text: Type.String(), user: Type.String() }),
    publish: Type.Object({ text: Type.String() }),
    presence: Type.Object({ name: Type.String() })
  },
  'chat:admin': { message: Type.Number(), publish: true }
})

declare module 'fastify-rooms' {
  interface Register { topics: typeof topics }
}
