import { sincePattern } from '../protocol/position.ts'
import { topicCharacters } from '../protocol/topic-name.ts'
import type { TopicDefinition } from '../topics/registry.ts'

/** Path parameters of a family's routes: what follows the stem. */
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
        description: stem === '' ? 'the topic' : `what follows ${stem} in the topic`
      }
    }
  }
}

/** Query of a topic's URL. Other members are the host's (a token, say), and their values stay out of the logs. */
export const querySchema: { type: 'object', properties: Record<string, { type: 'string', pattern: string }> } = {
  type: 'object',
  properties: {
    since: { type: 'string', pattern: sincePattern },
    presence: { type: 'string', pattern: '^[01]$' }
  }
}

/** What a broadcast route answers. */
export const broadcastResponseSchema: object = {
  type: 'object',
  description: 'The message was accepted.',
  required: ['topic', 'local', 'published'],
  properties: {
    topic: { type: 'string' },
    id: { type: 'string', description: 'the position of the message' },
    local: { type: 'integer', description: 'members of this node that it was queued to' },
    published: { type: 'boolean', description: 'whether the broker accepted it' }
  }
}
