import { maxMidLength, minSharedMidLength } from '../protocol/client-frames.ts'
import { sincePattern } from '../protocol/position.ts'
import { topicCharacters } from '../protocol/topic-name.ts'
import type { TopicDefinition } from '../topics/registry.ts'

/** Returns the schema of the path parameter of a family's routes: the part of the topic after the stem. */
export function paramsSchema ({ stem }: TopicDefinition, topicLength: number): object {
  return {
    type: 'object',
    required: ['topic'],
    properties: {
      topic: {
        type: 'string',
        minLength: 1,
        maxLength: topicLength - stem.length,
        pattern: `^[${topicCharacters}]+$`,
        description: stem === '' ? 'the topic' : `the part of the topic after ${stem}`
      }
    }
  }
}

/** The schema of the query of a topic's URL. Other parameters are the host's, such as a token; their values are not logged. */
export const querySchema: { type: 'object', properties: Record<string, { type: 'string', pattern: string }> } = {
  type: 'object',
  properties: {
    since: { type: 'string', pattern: sincePattern },
    presence: { type: 'string', pattern: '^[01]$' }
  }
}

/** The schema of the headers of a broadcast route, for documentation alone (see `compilersFor`). */
export const broadcastHeadersSchema: object = {
  type: 'object',
  properties: {
    'idempotency-key': {
      type: 'string',
      description: `names the message: a second one of the same user within 5 minutes gets the first response again, and is not sent. 1 to ${maxMidLength} characters of ASCII, at least ${minSharedMidLength} for an anonymous client; quotes around them are not counted`
    }
  }
}

/** The schema of the response of a broadcast route. */
export const broadcastResponseSchema: object = {
  type: 'object',
  description: 'The message was accepted.',
  required: ['topic', 'local', 'published'],
  properties: {
    topic: { type: 'string' },
    id: { type: 'string', description: 'the position of the message' },
    local: { type: 'integer', description: 'members of this node that it was queued to' },
    published: { type: 'boolean', description: 'whether the broker accepted it' },
    duplicate: { type: 'boolean', description: 'present if the message had been accepted before; this is the response to the first one' }
  }
}
