import { maxMidLength, minSharedMidLength } from '../protocol/client-frames.ts'
import { defaultPage, maxPage } from '../protocol/page-size.ts'
import { sincePattern } from '../protocol/position.ts'
import { topicCharacters } from '../protocol/topic-name.ts'
import { referencesOf } from '../schema/references.ts'
import { mapSchemas, type Schema } from '../schema/walk.ts'
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
    presence: { type: 'string', pattern: '^[01]$' },
    limit: { type: 'string', pattern: '^(?:[1-9][0-9]{0,2}|1000)$' },
    wait: { type: 'string', pattern: '^-?[0-9]{1,10}$' }
  }
}

/** The query of a plain `GET`, for documentation. */
export const documentedQuery: object = {
  type: 'object',
  properties: {
    since: { type: 'string', pattern: sincePattern, description: 'the id of a message or of an earlier answer: only what came after it' },
    limit: { type: 'integer', minimum: 1, maximum: maxPage, default: defaultPage, description: 'most messages' },
    wait: { type: 'integer', minimum: 1, maximum: 60_000, description: 'milliseconds to wait for a message after "since" if there is none' }
  }
}

/**
 * Returns the schema of a payload for OpenAPI. The references within it are replaced by copies of what they lead to, because they are relative to the schema, and
 * lead nowhere in a document that has the schema at another place. References to shared schemas stay: @fastify/swagger adds these to the document.
 */
export function documentedSchema (schema: object | null, shared: Record<string, unknown>): object {
  if (schema === null) return {}
  const resolve = referencesOf(schema as Schema, shared)
  const copy = (given: Schema, seen: readonly Schema[]): Schema => {
    const { $ref, $id, definitions, $defs, ...rest } = given
    const target = $ref === undefined ? undefined : resolve($ref)
    const own = mapSchemas(rest, inner => copy(inner, seen))
    if (target === undefined || target.shared) return $ref === undefined ? own : { ...own, $ref }
    if (seen.includes(target.schema)) return { description: 'the same schema again' }
    const inlined = copy(target.schema, [...seen, target.schema])
    // A reference beside `allOf` was replaced when the schema was made strict.
    return Object.keys(own).length === 0 ? inlined : { ...own, allOf: [inlined] }
  }
  return copy(schema as Schema, [schema as Schema])
}

/** The schema of the end of a stream. */
const endSchema = {
  type: 'object',
  description: 'present if the answer goes up to the end of the stream',
  required: ['id', 'reason'],
  properties: {
    id: { type: 'string' },
    reason: { type: 'string', enum: ['done', 'failed', 'stopped', 'lost'] },
    data: { description: 'what the producer has added' }
  }
}

/** Returns the schema of the response to a plain `GET` of a topic. */
export function snapshotResponseSchema ({ message, stream }: TopicDefinition, shared: Record<string, unknown>): object {
  return {
    type: 'object',
    description: 'The messages that the topic keeps.',
    required: ['topic', 'count', 'messages', 'complete'],
    properties: {
      topic: { type: 'string' },
      id: { type: 'string', description: 'the position up to which the messages go: valid as "since"' },
      count: { type: 'integer', description: 'members of the topic on this node' },
      messages: {
        type: 'array',
        items: {
          type: 'object',
          required: ['id', 'data'],
          properties: {
            id: { type: 'string' },
            data: documentedSchema(message.schema, shared),
            from: { type: 'string', description: 'the session that published it' },
            user: { type: 'string', description: 'the user of that session' },
            key: { type: 'string', description: 'the value that it replaces' }
          }
        }
      },
      recovered: { type: 'boolean', description: 'whether every message after "since" is still kept' },
      complete: { type: 'boolean', description: 'whether no message is missing up to the last one' },
      ...(stream ? { ended: endSchema } : {})
    }
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
    outcome: { type: 'string', enum: ['none', 'unknown'], description: 'present if published is false: whether the broker may have accepted it' },
    duplicate: { type: 'boolean', description: 'present if the message had been accepted before; this is the response to the first one' }
  }
}
