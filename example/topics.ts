import { Type, type Static } from '@sinclair/typebox'
import { defineTopics } from 'fastify-rooms'

/** The most numbers that one message may hold, and the most messages that a topic keeps. */
export const maxRecords = 200

/** One number of the dashboard. */
export const StatisticRecord = Type.Object({
  name: Type.String({ minLength: 1, maxLength: 40, pattern: '\\S' }),
  value: Type.Number(),
  at: Type.Optional(Type.String({ format: 'date-time', description: 'If left out, the time of arrival.' }))
})
export type Statistic = Static<typeof StatisticRecord>

/** The name of a person in a room. */
export const Name = Type.String({ minLength: 1, maxLength: 32, pattern: '\\S' })

/** A message that members of a chat receive. Without `user` it comes from the server. */
export const ChatMessage = Type.Object({
  user: Type.Optional(Type.String()),
  name: Name,
  text: Type.String(),
  at: Type.String({ format: 'date-time' })
})

export const topics = defineTopics({
  dailyNews: {
    message: Type.Array(StatisticRecord, { maxItems: maxRecords }),
    post: '/dailyDashBoard',
    // The curves of a page that is opened later begin with these, until a day after the last number.
    history: { size: maxRecords, ttl: 86_400_000 }
  },
  'chat:*': {
    message: ChatMessage,
    publish: Type.Object({ text: Type.String({ minLength: 1, maxLength: 2_000, pattern: '\\S' }) }),
    // A person that reloads the page, or is cut off for a moment, does not leave.
    presence: { info: Type.Object({ name: Name }), grace: 3_000 },
    // A page that is opened later begins with these. A tab whose connection was cut gets what it has missed in the meantime.
    history: { size: maxRecords, ttl: 600_000 }
  },
  // An answer of the assistant, piece by piece. It is kept for ten minutes after its end.
  'answer:*': { message: Type.String(), stream: true }
})

// From here on app.rooms, hooks and options of this program know these topics.
declare module 'fastify-rooms' {
  interface Register { topics: typeof topics }
}
