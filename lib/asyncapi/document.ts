import type { AsyncApiChannel, AsyncApiDocument, AsyncApiInfo, AsyncApiMessage, AsyncApiOperation, AsyncApiOptions, AsyncApiReference, AsyncApiSchema } from '../../types/index.ts'
import { FST_ROOMS_INVALID_ARGUMENT } from '../errors.ts'
import { closeBehaviour, closeCodes } from '../protocol/close-codes.ts'
import { sincePattern } from '../protocol/position.ts'
import { topicCharacters } from '../protocol/topic-name.ts'
import { isSchema } from '../schema/walk.ts'
import type { PayloadType } from '../topics/payload.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import { exampleOf } from './example.ts'
import { commonMessages, connectionMessages, topicMessages, type CommonMessage, type Payload } from './frames.ts'
import { ComponentSchemas, follow } from './schemas.ts'

/** The topics of an app, and what holds for all of them. */
export interface Contract {
  readonly definitions: readonly TopicDefinition[]
  /** The host's shared schemas (`app.getSchemas()`). */
  readonly shared: Record<string, unknown>
  /** The path before the topic. */
  readonly prefix: string
  readonly topicLength: number
  /** The path of connections that join their topics by frames; `undefined` if there is none. */
  readonly multiplex: string | undefined
  readonly topicsPerConnection: number
  /** Whether identities are checked, so that they can expire. */
  readonly identifies: boolean
  /** Whether members can renew their credentials. */
  readonly renews: boolean
}

/** The reaction of a client to a close, in words. */
export const reactions = { stop: 'Do not reconnect.', backoff: 'Reconnect later.', resume: 'Reconnect.', renew: 'Get new credentials, then reconnect.' } as const

/** The close codes in Markdown: the end of the document's description. */
export const closeText = `## Close codes

The range of a code tells a client how to react.

| Code | Reason | Reaction of a client |
| --- | --- | --- |
${Object.entries(closeCodes).map(([code, name]) => `| ${code} | \`${name}\` | ${reactions[closeBehaviour(Number(code))]} |`).join('\n')}`

/** The part of the description that holds for all topics. */
const introduction = [
  'Each channel is a topic, or a family of topics, of the same server. Its address is a URL: a WebSocket joins the topic with the subprotocol `rooms.v1`, whose frames are the messages of this document, each one JSON object. With `rooms.raw`, a frame is the bare payload, without an envelope.',
  'A GET of the same URL that accepts `text/event-stream` joins the topic by Server-Sent Events, and reads the same frames. A plain GET reads the messages that the topic keeps, and joins nothing.'
].join('\n\n')

const defaultInfo: AsyncApiInfo = { title: 'Rooms', version: '0.0.0' }

/** Returns a number with its digits in groups of three. */
function grouped (value: number): string {
  return String(value).replace(/\B(?=(?:\d{3})+$)/g, ',')
}

/** Names by which the document refers to topics. They consist of letters, digits, dots, underscores and dashes. */
function channelNames (definitions: readonly TopicDefinition[]): Map<TopicDefinition, string> {
  const names = new Map<TopicDefinition, string>()
  const taken = new Set<string>()
  // Exact names get theirs first, because a family may differ from one in its star alone.
  for (const definition of [...definitions].sort((one, other) => Number(one.family) - Number(other.family))) {
    const clean = (definition.family ? definition.stem.replace(/[^A-Za-z0-9]+$/, '') : definition.key).replace(/[^\w.-]+/g, '-') || 'topic'
    let free = clean
    for (let number = 2; taken.has(free); number++) free = `${clean}-${number}`
    taken.add(free)
    names.set(definition, free)
  }
  return names
}

/** Returns the name of a topic, or of one in a family. */
function exampleTopic ({ stem, family }: Pick<TopicDefinition, 'stem' | 'family'>, topicLength: number): string {
  return family ? `${stem}example`.slice(0, topicLength) : stem
}

/** Makes a document. */
class Writer {
  readonly channels: AsyncApiDocument['channels'] = {}
  readonly operations: AsyncApiDocument['operations'] = {}
  readonly messages: Record<string, AsyncApiMessage> = {}
  readonly #contract: Contract
  readonly #schemas: ComponentSchemas

  constructor (contract: Contract) {
    this.#contract = contract
    this.#schemas = new ComponentSchemas(contract.shared)
    const names = channelNames(contract.definitions)
    for (const definition of contract.definitions) this.#addTopic(names.get(definition)!, definition)
    if (contract.multiplex !== undefined) this.#addConnection(contract.multiplex, names)
  }

  get schemas (): Record<string, AsyncApiSchema> { return this.#schemas.schemas }

  #payload (name: string, type: PayloadType): Payload {
    if (type.schema === null) return { schema: { description: 'any JSON' }, example: { value: 'any JSON' } }
    const { $ref } = this.#schemas.add(name, type.schema)
    const document = { components: { schemas: this.schemas } }
    const { title, description } = type.schema as { title?: unknown, description?: unknown }
    return {
      schema: { $ref },
      example: exampleOf({ $ref }, ref => follow(document, ref), value => { type.check(value) }),
      title: typeof title === 'string' ? title : undefined,
      description: typeof description === 'string' ? description : undefined
    }
  }

  #addTopic (name: string, definition: TopicDefinition): void {
    const { publish, presence, history, stream, converted } = definition
    const message = this.#payload(`${name}.message`, definition.message)
    const sent = publish === null ? undefined : converted ? this.#payload(`${name}.publish`, publish) : message
    const info = presence === null ? undefined : this.#payload(`${name}.presence`, presence)
    // A member's own message, passed on unchanged, has the type that members send.
    const received: Payload = sent === undefined || sent === message ? message : { ...message, schema: { anyOf: [message.schema, sent.schema] } }

    const channel: AsyncApiChannel = this.channels[name] = this.#channel(definition)
    const common = (frame: CommonMessage): AsyncApiReference => this.#add(name, channel, frame, commonMessages[frame], frame)
    const own = (frame: keyof typeof topicMessages, of: AsyncApiMessage): AsyncApiReference => this.#add(name, channel, frame, of, `${name}.${frame}`)

    const hello = common('hello')
    const published = own('message', topicMessages.message(message))
    const direct = own('direct', topicMessages.direct(received))
    const ack = common('ack')
    const sends = [
      hello,
      published,
      direct,
      ...(info === undefined ? [] : [own('presence', topicMessages.presence(info))]),
      ...(stream ? [own('end', topicMessages.end())] : []),
      common('error'),
      common('gap'),
      ...(this.#contract.identifies ? [common('expiring')] : []),
      common('bye')
    ]
    const add = (operation: string, action: AsyncApiOperation['action'], summary: string, messages: AsyncApiReference[], ...answers: AsyncApiReference[]): void => {
      this.#operate(name, operation, channel, action, summary, messages, answers)
    }
    add('send', 'send', 'The server sends to the members.', sends)
    add('ask', 'send', 'The server asks a member, and the member answers.', [direct], common('answer'))
    if (sent !== undefined) {
      add('receive', 'receive', 'A member publishes to the topic.', [own('publish', topicMessages.publish(sent))], ack)
      add('receiveDirect', 'receive', 'A member writes to one session, or to all sessions of a user.', [own('sendDirect', topicMessages.sendDirect(sent))], ack)
    }
    if (info !== undefined) add('receivePresence', 'receive', 'A member changes its presence info, or asks for the list of members.', [own('setPresence', topicMessages.setPresence(info))], ack)
    if (history !== null) add('receiveHistory', 'receive', 'A member reads messages that the topic keeps.', [common('history')], own('page', topicMessages.page(message, stream)))
    if (this.#contract.renews) add('receiveAuth', 'receive', 'A member renews its credentials.', [common('auth')], ack)
    add('receivePing', 'receive', 'A member checks its connection.', [common('ping')], ack)
  }

  /** Returns the frames that the server, or members, send in the channels of topics, without those that concern a whole connection. */
  #framesOf (byServer: boolean): AsyncApiReference[] {
    const refs = Object.values(this.operations).flatMap(({ action, messages, reply }) => (action === 'send') === byServer ? messages : reply?.messages ?? [])
    const components = new Set(refs.map(({ $ref }) => {
      const [, , name, , frame] = $ref.split('/') as [string, string, string, string, string]
      return this.channels[name]!.messages[frame]!.$ref
    }))
    for (const name of ['hello', 'expiring', 'ping', 'auth']) components.delete(`#/components/messages/${name}`)
    return [...components].map($ref => ({ $ref: `${$ref}/payload` }))
  }

  /** Adds the channel of connections that join their topics by frames. */
  #addConnection (address: string, names: Map<TopicDefinition, string>): void {
    const taken = [...names.values()]
    let name = 'rooms'
    for (let number = 2; taken.includes(name); number++) name = `rooms-${number}`

    const [[definition, first]] = [...names] as [[TopicDefinition, string]]
    const topic = exampleTopic(definition, this.#contract.topicLength)
    /** The example of a frame, with its topic. */
    const exampleOf = (frame: string): object | undefined => {
      const { type, ...others } = (this.messages[`${first}.${frame}`]?.examples?.[0]?.payload ?? {}) as { type?: string }
      return type === undefined ? undefined : { type, topic, ...others }
    }
    const frames = connectionMessages({ frames: this.#framesOf(true), example: exampleOf('message') }, { frames: this.#framesOf(false), example: exampleOf('publish') }, topic)
    const channel: AsyncApiChannel = this.channels[name] = {
      address,
      title: 'Several topics on one connection',
      description: `A connection that joins and leaves topics by frames, at most ${grouped(this.#contract.topicsPerConnection)} at a time. Each frame of a topic is as in the topic's own channel, with \`topic\` right behind \`type\`. Frames without \`topic\` concern the connection. The only subprotocol is \`rooms.v1\`.`,
      messages: {},
      bindings: { ws: { method: 'GET', bindingVersion: '0.1.0' } }
    }
    const own = (frame: keyof typeof frames): AsyncApiReference => this.#add(name, channel, frame, frames[frame], `${name}.${frame}`)
    const common = (frame: CommonMessage): AsyncApiReference => this.#add(name, channel, frame, commonMessages[frame], frame)
    const add = (operation: string, action: AsyncApiOperation['action'], summary: string, messages: AsyncApiReference[], ...answers: AsyncApiReference[]): void => {
      this.#operate(name, operation, channel, action, summary, messages, answers)
    }
    const join = own('join')
    const ack = common('ack')
    add('send', 'send', 'The server sends to the connection.', [own('connected'), own('deliver'), ...(this.#contract.identifies ? [common('expiring')] : []), common('error'), common('bye')])
    add('join', 'receive', 'A member joins a topic.', [join], own('joined'), own('refused'))
    add('leave', 'receive', 'A member leaves a topic.', [own('leave')], ack)
    add('receive', 'receive', 'A member sends a frame to a topic.', [own('publish')], ack)
    if (this.#contract.renews) add('receiveAuth', 'receive', 'The connection renews its credentials.', [common('auth')], ack)
    add('receivePing', 'receive', 'A peer checks its connection.', [common('ping')], ack)
  }

  #operate (name: string, operation: string, { title }: AsyncApiChannel, action: AsyncApiOperation['action'], summary: string, messages: AsyncApiReference[], answers: AsyncApiReference[]): void {
    const channel = { $ref: `#/channels/${name}` }
    this.operations[`${name}.${operation}`] = { action, channel, title: `${operation}: ${title!}`, summary, messages, ...(answers.length === 0 ? {} : { reply: { channel, messages: answers } }) }
  }

  /** Adds a message to the components and to a channel, and returns the reference to it in the channel. */
  #add (name: string, channel: AsyncApiChannel, frame: string, message: AsyncApiMessage, component: string): AsyncApiReference {
    this.messages[component] = message
    channel.messages[frame] = { $ref: `#/components/messages/${component}` }
    return { $ref: `#/channels/${name}/messages/${frame}` }
  }

  #channel ({ key, stem, family, presence, post, maxPayload, history, stream, message }: TopicDefinition): AsyncApiChannel {
    const { prefix, topicLength } = this.#contract
    const address = `${prefix}/${stem}${family ? '{topic}' : ''}`
    const { description: text } = (message.schema ?? {}) as { description?: unknown }
    const description = [
      ...(typeof text === 'string' ? [text] : []),
      ...(stream ? ['The topic is a stream: one finite answer, from its beginning to its end.'] : []),
      ...(history === null ? ['The topic keeps no messages.'] : [`The topic keeps ${history.latest ? 'the newest message of each key' : 'its newest messages'}, until ${grouped(history.ttl)} ms after the last one: join with \`since\` to resume.`]),
      ...(post === false ? [] : [`POST ${typeof post === 'string' ? prefix + post : address} broadcasts a JSON body to all members.`]),
      `A frame of a member has at most ${grouped(maxPayload)} bytes.`
    ].join('\n\n')
    return {
      address,
      title: key,
      description,
      messages: {},
      ...(family
        ? { parameters: { topic: { description: `${stem === '' ? 'The topic' : `The part of the topic after \`${stem}\``}: 1 to ${topicLength - stem.length} characters of \`${topicCharacters}\`.`, examples: [exampleTopic({ stem: '', family }, topicLength - stem.length)] } } }
        : {}),
      bindings: {
        ws: {
          method: 'GET',
          query: {
            type: 'object',
            properties: {
              since: { type: 'string', pattern: sincePattern, description: 'the last id that the client has received: resume behind it; "0": all kept messages; "latest": the newest of each key' },
              ...(presence === null ? {} : { presence: { type: 'string', enum: ['0', '1'], default: '0', description: '1: send the list of members after hello' } })
            }
          },
          bindingVersion: '0.1.0'
        }
      }
    }
  }
}

/** @throws FST_ROOMS_INVALID_ARGUMENT */
function checkOptions (options: unknown): asserts options is AsyncApiOptions {
  if (!isSchema(options)) throw new FST_ROOMS_INVALID_ARGUMENT('options', 'an object with "info" and "servers"')
  for (const [name, value] of Object.entries(options)) {
    if (name !== 'info' && name !== 'servers') throw new FST_ROOMS_INVALID_ARGUMENT(name, 'nothing: there is no such option')
    if (value !== undefined && !isSchema(value)) throw new FST_ROOMS_INVALID_ARGUMENT(name, 'an object')
  }
}

/** Returns a function that returns the document of a contract. It is made when the function is called for the first time; each call returns a copy. */
export function documentOf (contract: () => Contract, defaults: AsyncApiOptions): (options?: AsyncApiOptions) => AsyncApiDocument {
  let topics: Writer | undefined
  return (options = {}) => {
    checkOptions(options)
    topics ??= new Writer(contract())
    const { channels, operations, messages, schemas } = topics
    const info: AsyncApiInfo = { ...defaultInfo, ...(options.info ?? defaults.info) }
    const servers = options.servers ?? defaults.servers
    const document: AsyncApiDocument = {
      asyncapi: '3.0.0',
      info: { ...info, description: [info.description, introduction, closeText].filter(text => text !== undefined).join('\n\n') },
      defaultContentType: 'application/json',
      ...(servers === undefined ? {} : { servers }),
      channels,
      operations,
      components: { schemas, messages }
    }
    return JSON.parse(JSON.stringify(document)) as AsyncApiDocument
  }
}
