import type { AsyncApiMessage, AsyncApiReference, AsyncApiSchema } from '../../types/index.ts'
import { maxKeyLength, maxMidLength } from '../protocol/client-frames.ts'
import { defaultPage, maxPage } from '../protocol/page-size.ts'
import { sincePattern } from '../protocol/position.ts'
import { topicCharacters } from '../protocol/topic-name.ts'

type Properties = Record<string, AsyncApiSchema>

const string = (description?: string): AsyncApiSchema => ({ type: 'string', ...(description === undefined ? {} : { description }) })
const whole = (description: string): AsyncApiSchema => ({ type: 'integer', minimum: 0, description })
const anything = (description: string): AsyncApiSchema => ({ description })

const ref: AsyncApiSchema = {
  description: 'names the frame in its answer',
  oneOf: [{ type: 'string', minLength: 1, maxLength: 64 }, { type: 'integer' }]
}
const id = string('a position of the topic: opaque, valid as "since"')
const error: AsyncApiSchema = {
  type: 'object',
  required: ['code', 'message'],
  properties: {
    code: string('stable: FST_ROOMS_…, or that of an error of the application'),
    message: string(),
    details: { type: 'array', description: 'the faults of a payload', items: { type: 'object', required: ['path', 'message'], properties: { path: string('a JSON pointer'), message: string() } } }
  }
}
const end = (data: AsyncApiSchema): AsyncApiSchema => ({ type: 'object', description: 'present if the page goes up to the end of the stream', required: ['id', 'reason'], properties: { id, reason: endReason, data } })
const endReason: AsyncApiSchema = { type: 'string', enum: ['done', 'failed', 'stopped', 'lost'] }
const anyEnd = anything('the value that the producer has added')

/** Positions and sessions of the examples. */
const position = '9f86d081884c7d65-1043'
const session = '0b6cf3a2-5d1e-4f0a-9b7c-2f8e6d4c1a35'

/** Returns the schema of a frame. Receivers ignore members that they do not know, so it takes others. */
function frame (type: string, required: string[], properties: Properties): AsyncApiSchema {
  return { type: 'object', required: ['type', ...required], properties: { type: { type: 'string', const: type }, ...properties } }
}

interface More { examples?: unknown[], answered?: boolean, title?: string }

function message (name: string, summary: string, payload: AsyncApiSchema, { examples = [], answered = false, title }: More = {}): AsyncApiMessage {
  return {
    name,
    ...(title === undefined ? {} : { title }),
    summary,
    contentType: 'application/json',
    payload,
    ...(answered ? { correlationId: { location: '$message.payload#/ref' } } : {}),
    ...(examples.length === 0 ? {} : { examples: examples.map(payload => ({ payload })) })
  }
}

/** The frames that are the same in all topics, by their name in `components.messages`. */
export const commonMessages = {
  hello: message('hello', 'The join is complete: the messages after "id" follow.', frame('hello', ['v', 'session', 'topic', 'heartbeat', 'maxPayload'], {
    id,
    v: { const: 1 },
    session: string('the id of this session: public, grants no rights'),
    topic: string(),
    heartbeat: whole('milliseconds of silence after which the server pings; 0: it does not'),
    maxPayload: whole('bytes of the largest frame that the server accepts here'),
    recovered: { type: 'boolean', description: 'present if "since" was an id; false: messages may be missing, so reload the state' },
    replayed: whole('kept messages that follow')
  }), { examples: [{ type: 'hello', id: position, v: 1, session, topic: 'news', heartbeat: 25_000, maxPayload: 65_536 }] }),
  ack: message('ack', 'The answer to a frame with the same "ref".', {
    ...frame('ack', ['ref', 'ok'], { ref }) as object,
    oneOf: [
      { properties: { ok: { const: true }, id, data: anything('the result, if there is one'), duplicate: { const: true, description: 'a message with the same "mid" had been accepted before' } } },
      { required: ['error'], properties: { ok: { const: false }, error } }
    ]
  }, { answered: true, examples: [{ type: 'ack', ref: 7, ok: true, id: position }, { type: 'ack', ref: 7, ok: false, error: { code: 'FST_ROOMS_FORBIDDEN', message: 'forbidden' } }] }),
  error: message('error', 'A frame without "ref" was refused.', frame('error', ['error'], { error }), { examples: [{ type: 'error', error: { code: 'FST_ROOMS_BAD_FRAME', message: 'bad frame: "data" is missing' } }] }),
  gap: message('gap', 'Messages that this member does not get.', frame('gap', ['reason'], {
    count: { type: 'integer', minimum: 1 },
    reason: { type: 'string', enum: ['slow', 'lost', 'reset'], description: 'slow: this member reads too slowly; lost: on their way to the server; reset: the positions of the topic start again' },
    from: id,
    to: id
  }), { examples: [{ type: 'gap', count: 12, reason: 'slow', from: position, to: '9f86d081884c7d65-1055' }] }),
  expiring: message('expiring', 'The credentials of this member expire soon.', frame('expiring', ['in'], { in: whole('milliseconds until the session ends with 4300') }), { examples: [{ type: 'expiring', in: 30_000 }] }),
  bye: message('bye', 'The server closes the connection.', frame('bye', ['code', 'reason'], {
    code: { type: 'integer', description: 'the close code' },
    reason: string(),
    retry: { type: 'object', description: 'reconnect after a random number of milliseconds in this range; absent: do not reconnect, or not yet', required: ['min', 'max'], properties: { min: { type: 'integer' }, max: { type: 'integer' } } },
    id
  }), { examples: [{ type: 'bye', code: 1001, reason: 'going_away', retry: { min: 212, max: 1_000 }, id: position }] }),
  answer: message('answer', 'The answer of a member to a "direct" frame with "ref".', frame('ack', ['ref'], { ref, data: anything('the answer: any JSON') }), { title: 'ack (of a member)', answered: true, examples: [{ type: 'ack', ref: 's1', data: 'yes' }] }),
  auth: message('auth', 'New credentials of the same user.', frame('auth', ['token'], { token: { type: 'string', minLength: 1, maxLength: 8_192 }, ref }), { answered: true, examples: [{ type: 'auth', token: 'eyJhbGciOi…', ref: 12 }] }),
  ping: message('ping', 'Asks for an ack, which shows that the connection works.', frame('ping', [], { ref }), { answered: true, examples: [{ type: 'ping', ref: 13 }] }),
  history: message('history', 'Asks for a page of the messages that the topic keeps.', frame('history', ['ref'], {
    since: { type: 'string', pattern: sincePattern, description: 'the id of a message: those behind it; absent or "0": the newest; "latest": the newest of each key' },
    limit: { type: 'integer', minimum: 1, maximum: maxPage, default: defaultPage },
    ref
  }), { answered: true, examples: [{ type: 'history', since: position, limit: 50, ref: 10 }] })
} satisfies Record<string, AsyncApiMessage>

export type CommonMessage = keyof typeof commonMessages

/** A payload that a topic takes: the reference to its schema, and an example of it. */
export interface Payload {
  readonly schema: AsyncApiSchema | AsyncApiReference
  readonly example: { readonly value: unknown } | undefined
  readonly title?: string | undefined
  readonly description?: string | undefined
}

const from = string('the session that published it, if a member did')
const user = string('the user of that session')
const key: AsyncApiSchema = { type: 'string', minLength: 1, maxLength: maxKeyLength, description: 'names the value that the message replaces' }

interface About { of: (schema: AsyncApiSchema) => AsyncApiSchema, example: (value: unknown) => unknown, answered?: boolean }

/** Returns a frame that carries a payload of its topic. */
function about (name: string, summary: string, payload: Payload, { of, example, answered = false }: About): AsyncApiMessage {
  const { title, description } = payload
  return {
    ...message(name, summary, of(payload.schema as AsyncApiSchema), { answered, ...(title === undefined ? {} : { title }), examples: payload.example === undefined ? [] : [example(payload.example.value)] }),
    ...(description === undefined ? {} : { description })
  }
}

/** Returns the frames of one topic, by the last part of their name in `components.messages`. */
export const topicMessages = {
  message: (payload: Payload): AsyncApiMessage => about('message', 'A message to all members.', payload, {
    of: data => frame('message', ['data'], { id, data, from, user, key }),
    example: data => ({ type: 'message', id: position, data })
  }),
  direct: (payload: Payload): AsyncApiMessage => about('direct', 'A private message to this member.', payload, {
    of: data => frame('direct', ['data'], { data, from, user, ref: { ...ref as object, description: 'present if an answer is requested: send an ack' } }),
    example: data => ({ type: 'direct', data, from: session })
  }),
  presence: (info: Payload): AsyncApiMessage => {
    const members = { type: 'array', items: { type: 'object', required: ['session'], properties: { session: string(), user: string(), info: info.schema } } }
    return about('presence', 'The members of the topic: all of them, a difference, or only their number.', info, {
      of: () => frame('presence', ['count'], {
        count: whole('members'),
        state: { ...members, description: 'replaces the list' },
        join: { ...members, description: 'came, or have new info' },
        leave: { type: 'array', description: 'left', items: { type: 'object', required: ['session'], properties: { session: string() } } }
      }),
      example: value => ({ type: 'presence', count: 1, state: [{ session, info: value }] })
    })
  },
  end: (): AsyncApiMessage => message('end', 'The stream has ended; bye with 1000 follows.', frame('end', ['reason'], { id, reason: endReason, data: anyEnd }), { examples: [{ type: 'end', id: position, reason: 'done' }] }),
  page: ({ schema }: Payload, isStream: boolean): AsyncApiMessage => message('page', 'A page of kept messages: the answer to a history frame.', {
    ...frame('ack', ['ref', 'ok'], {
      ref,
      ok: { const: true },
      data: {
        type: 'object',
        required: ['messages', 'complete'],
        properties: {
          id,
          messages: { type: 'array', items: { type: 'object', required: ['id', 'data'], properties: { id, data: schema as AsyncApiSchema, from, user, key } } },
          recovered: { type: 'boolean', description: 'present if "since" was an id; false: messages behind it are no longer kept' },
          complete: { type: 'boolean', description: 'whether no message is missing up to the last one' },
          ...(isStream ? { ended: end(anyEnd) } : {})
        }
      }
    }) as object
  }, { title: 'ack (a page)', answered: true }),
  publish: (payload: Payload): AsyncApiMessage => about('publish', 'A message of a member.', payload, {
    of: data => frame('message', ['data'], { data, key, mid: { type: 'string', minLength: 1, maxLength: maxMidLength, description: 'names the message, so that it can be sent again without doubt' }, ref }),
    example: data => ({ type: 'message', data, ref: 7 }),
    answered: true
  }),
  sendDirect: (payload: Payload): AsyncApiMessage => about('sendDirect', 'A private message of a member.', payload, {
    of: data => frame('direct', ['to', 'data'], { to: string('the id of a session, or "user:" and a user'), data, ref }),
    example: data => ({ type: 'direct', to: session, data, ref: 8 }),
    answered: true
  }),
  setPresence: (info: Payload): AsyncApiMessage => about('setPresence', 'New presence info of a member; without "info" it asks for the list of members.', info, {
    of: schema => frame('presence', [], { info: schema, ref }),
    example: value => ({ type: 'presence', info: value, ref: 10 }),
    answered: true
  })
} as const

const topic: AsyncApiSchema = { type: 'string', pattern: `^[${topicCharacters}]+$`, description: 'the topic; right behind "type"' }

/** Returns a frame of a topic's channel with its topic, as it is on a connection of several topics. */
function withTopic (name: string, summary: string, frames: AsyncApiReference[], example: object | undefined, answered = false): AsyncApiMessage {
  return message(name, summary, { type: 'object', required: ['topic'], properties: { topic }, anyOf: frames }, { answered, examples: example === undefined ? [] : [example] })
}

/** The frames of one direction in all topics: references to their schemas, and an example with the topic named in it. */
export interface TopicFrames {
  readonly frames: AsyncApiReference[]
  readonly example: object | undefined
}

/** Returns the frames of a connection that joins its topics by frames, by the last part of their name in `components.messages`. */
export function connectionMessages (toMembers: TopicFrames, fromMembers: TopicFrames, example: string): Record<'connected' | 'join' | 'joined' | 'refused' | 'leave' | 'deliver' | 'publish', AsyncApiMessage> {
  const hello = commonMessages.hello.payload as { required: string[], properties: Properties }
  const retry = (commonMessages.bye.payload as { properties: Properties }).properties['retry']!
  return {
    connected: message('connected', 'The connection is open: join topics.', frame('hello', ['v', 'heartbeat', 'maxPayload'], {
      v: { const: 1 },
      heartbeat: hello.properties['heartbeat']!,
      maxPayload: hello.properties['maxPayload']!
    }), { examples: [{ type: 'hello', v: 1, heartbeat: 25_000, maxPayload: 65_536 }] }),
    join: message('join', 'Joins a topic.', frame('join', ['topic'], {
      topic,
      since: { type: 'string', pattern: sincePattern, description: 'the last id that the client has received: resume behind it' },
      presence: { type: 'boolean', description: 'true: send the list of members after hello' },
      ref
    }), { answered: true, examples: [{ type: 'join', topic: example, ref: 1 }] }),
    joined: message('joined', 'The join of a topic is complete.', { ...hello, properties: { ...hello.properties, topic, ref } }, {
      answered: true,
      examples: [{ type: 'hello', topic: example, id: position, v: 1, session, ref: 1, heartbeat: 25_000, maxPayload: 65_536 }]
    }),
    refused: message('refused', 'The join of a topic is refused; the connection stays.', frame('ack', ['topic', 'ok', 'error', 'close'], {
      topic, ref, ok: { const: false }, error, close: { type: 'integer', description: 'the close code of such a join by URL' }, retry
    }), { answered: true, examples: [{ type: 'ack', topic: example, ref: 1, ok: false, error: { code: 'FST_ROOMS_FORBIDDEN', message: 'forbidden' }, close: 4003 }] }),
    leave: message('leave', 'Leaves a topic.', frame('leave', ['topic'], { topic, ref }), { answered: true, examples: [{ type: 'leave', topic: example, ref: 2 }] }),
    deliver: withTopic('deliver', 'Each frame that the channel of a topic has, with the topic.', toMembers.frames, toMembers.example),
    publish: withTopic('publish', 'Each frame that members send in the channel of a topic, with the topic.', fromMembers.frames, fromMembers.example, true)
  }
}
