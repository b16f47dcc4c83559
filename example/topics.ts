import { Type, type Static } from '@sinclair/typebox'
import { defineTopics } from 'fastify-rooms'

/** Figures that are kept for newcomers, and the most that one message takes. */
export const maxRecords = 200

/** One figure of the dashboard. */
export const StatisticRecord = Type.Object({
  name: Type.String({ minLength: 1, maxLength: 40, pattern: '\\S' }),
  value: Type.Number(),
  at: Type.Optional(Type.String({ format: 'date-time', description: 'Left out: now.' }))
})
export type Statistic = Static<typeof StatisticRecord>

/** What a person is called in a room. */
export const Name = Type.String({ minLength: 1, maxLength: 32, pattern: '\\S' })

/** What members of a chat receive. Without `session` it is the server that speaks. */
export const ChatMessage = Type.Object({
  session: Type.Optional(Type.String()),
  name: Name,
  text: Type.String(),
  at: Type.String({ format: 'date-time' })
})

export const topics = defineTopics({
  dailyNews: {
    message: Type.Array(StatisticRecord, { maxItems: maxRecords }),
    post: '/dailyDashBoard'
  },
  'chat:*': {
    message: ChatMessage,
    publish: Type.Object({ text: Type.String({ minLength: 1, maxLength: 2_000, pattern: '\\S' }) }),
    presence: Type.Object({ name: Name })
  }
})

// From here on app.rooms, hooks and options of this program know these topics.
declare module 'fastify-rooms' {
  interface Register { topics: typeof topics }
}
