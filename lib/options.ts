import { Kind, Type, TypeRegistry, type Static, type TArray, type TObject, type TProperties, type TSchema, type TUnion, type TUnsafe } from '@sinclair/typebox'
import { Value, ValueErrorType } from '@sinclair/typebox/value'
import type { LogLevel } from 'fastify'
import type { AsyncApiInfo, AsyncApiRoutes, AsyncApiServer, Broker, RoomsOptions, RouteHooks } from '../types/index.ts'
import { FST_ROOMS_INVALID_OPTION } from './errors.ts'
import { maxTopicLength } from './protocol/topic-name.ts'

type AnyFunction = (...args: never[]) => unknown
/** The public type of one option, of any topic map. */
type Public<K extends keyof RoomsOptions<any>> = NonNullable<RoomsOptions<any>[K]>
/** A name of its own, because @fastify/websocket does not export the type, and declarations need one. */
interface WebSocketOptions extends NonNullable<Public<'websocket'>['options']> {}

/** The functions that an option takes; `Option` is the public type of the option. */
const functionOf = <Option>(description: string): TUnsafe<Extract<Option, AnyFunction>> => Type.Unsafe({ [Kind]: 'RoomsFunction', description })
// Takes functions that are validator objects (ArkType), so that the error for topics can say what to give instead.
const schemaOf = (description: string): TUnsafe<object> => Type.Unsafe({ [Kind]: 'RoomsSchema', description })
const instanceOf = <T>(description: string, functions: string[] = []): TUnsafe<T> => Type.Unsafe({ [Kind]: 'RoomsObject', description, functions })

// Kinds of runtime values that JSON Schema cannot describe. The registry is global in TypeBox and keyed by name, so setting a kind twice is harmless.
TypeRegistry.Set('RoomsFunction', (_schema, value) => typeof value === 'function')
TypeRegistry.Set('RoomsObject', (schema: { functions: string[] }, value) => typeof value === 'object' && value !== null && !Array.isArray(value) &&
  schema.functions.every(name => typeof (value as Record<string, unknown>)[name] === 'function'))
TypeRegistry.Set('RoomsSchema', (_schema, value) => (typeof value === 'object' && value !== null && !Array.isArray(value)) || (typeof value === 'function' && '~standard' in value))
TypeRegistry.Set('RoomsRegExp', (_schema, value) => value instanceof RegExp)

const group = <P extends TProperties>(properties: P, description: string): TUnsafe<Readonly<Static<TObject<P>>>> =>
  Type.Unsafe(Type.Object(properties, { additionalProperties: false, default: {}, description }))
const milliseconds = (minimum: number, value: number, description: string) => Type.Integer({ minimum, maximum: 2 ** 31 - 1, default: value, description })
const count = (value: number, description: string, minimum = 1) => Type.Integer({ minimum, default: value, description })

const policies = [Type.Literal('close'), Type.Literal('latest'), Type.Literal('drop')]
const slowBytes = 'buffered bytes of one member, a whole number from 1'

const historySchema = Type.Union([
  Type.Boolean(),
  Type.Object({
    size: Type.Optional(Type.Integer({ minimum: 1, description: 'kept messages, a whole number from 1' })),
    bytes: Type.Optional(Type.Integer({ minimum: 1, description: 'bytes of kept messages, a whole number from 1' })),
    ttl: Type.Optional(Type.Integer({ minimum: 1, maximum: 2 ** 31 - 1, description: 'milliseconds from the last publication, a whole number from 1' })),
    replay: Type.Optional(Type.Integer({ minimum: 1, description: 'bytes that are replayed to one member, a whole number from 1' })),
    latest: Type.Optional(Type.Literal(true, { description: 'true' }))
  }, { additionalProperties: false })
], { description: 'true, false, or an object with "size", "bytes", "ttl" and "replay", whole numbers from 1, and "latest: true"' })

const topicSchema = Type.Object({
  message: Type.Optional(schemaOf('a JSON Schema object')),
  publish: Type.Optional(Type.Union([Type.Literal(true), schemaOf('a schema')], { description: 'true or a JSON Schema object' })),
  // Options and a schema are told apart when the topic is compiled (topics/presence.ts).
  presence: Type.Optional(Type.Union([Type.Literal(true), schemaOf('a schema'), Type.Object({
    info: Type.Optional(Type.Union([Type.Literal(true), schemaOf('a schema')])),
    grace: milliseconds(0, 0, 'milliseconds, a whole number from 0')
  })], { description: 'true, a JSON Schema object, or an object with "info" and "grace"' })),
  post: Type.Optional(Type.Union([Type.Literal(true), Type.Unsafe<`/${string}`>(Type.String({ pattern: '^(?:/|(?:/[A-Za-z0-9_.~-]+)+)$' }))], { description: 'true or a path of literal segments, beginning with "/"' })),
  limits: Type.Optional(Type.Object({
    members: Type.Optional(Type.Integer({ minimum: 1, description: 'a whole number from 1' })),
    payload: Type.Optional(Type.Integer({ minimum: 1, description: 'bytes, a whole number from 1' })),
    messages: Type.Optional(Type.Integer({ minimum: 1, description: 'a whole number from 1' })),
    per: Type.Optional(Type.Integer({ minimum: 1, maximum: 2 ** 31 - 1, description: 'milliseconds, a whole number from 1' }))
  }, { additionalProperties: false, description: 'an object with "members", "payload", "messages" and "per"' })),
  slow: Type.Optional(Type.Object({
    policy: Type.Optional(Type.Union(policies, { description: '"close", "latest" or "drop"' })),
    bytes: Type.Optional(Type.Integer({ minimum: 1, description: slowBytes }))
  }, { additionalProperties: false, description: 'an object with "policy" and "bytes"' })),
  history: Type.Optional(historySchema),
  outage: Type.Optional(Type.Union([Type.Literal('wait'), Type.Literal('local')], { description: '"wait" or "local"' })),
  stream: Type.Optional(Type.Literal(true, { description: 'true' }))
}, { additionalProperties: false, description: 'a topic: an object with "message", "publish", "presence", "post", "limits", "slow", "history", "outage" and "stream"' })

const logLevel = (description: string): TUnsafe<LogLevel> => Type.Unsafe(Type.String({ description }))

type HookName = 'onRequest' | 'preParsing' | 'preValidation' | 'preHandler' | 'onTimeout' | 'onError' | 'onSend' | 'onResponse'
type Hook<Name extends HookName> = Extract<RouteHooks[Name], AnyFunction>

const hooks = <Name extends HookName>(): TUnion<[TUnsafe<Hook<Name>>, TArray<TUnsafe<Hook<Name>>>]> => {
  const hook = functionOf<Hook<Name>>('a hook')
  return Type.Union([hook, Type.Array(hook)], { description: 'a hook or an array of hooks' })
}
/** The options of a route that the host may set. None of them can turn validation off. */
const routeSchema = (description: string) => group({
  onRequest: Type.Optional(hooks<'onRequest'>()),
  preParsing: Type.Optional(hooks<'preParsing'>()),
  preValidation: Type.Optional(hooks<'preValidation'>()),
  preHandler: Type.Optional(hooks<'preHandler'>()),
  onTimeout: Type.Optional(hooks<'onTimeout'>()),
  onError: Type.Optional(hooks<'onError'>()),
  onSend: Type.Optional(hooks<'onSend'>()),
  onResponse: Type.Optional(hooks<'onResponse'>()),
  config: Type.Optional(instanceOf<NonNullable<RouteHooks['config']>>('an object')),
  constraints: Type.Optional(instanceOf<NonNullable<RouteHooks['constraints']>>('an object')),
  logLevel: Type.Optional(logLevel('a log level'))
}, description)

/** Registration options, with their defaults and bounds. A test compares docs/options.md with it, a type test types/options.ts. */
export const optionsSchema = Type.Object({
  prefix: Type.Optional(Type.String({ pattern: '^(?:/[A-Za-z0-9_.~-]+)*/?$', description: 'a path of literal segments, beginning with "/"' })),
  multiplex: Type.Optional(Type.Union([Type.Literal(false), Type.String({ pattern: '^(?:/[A-Za-z0-9_.~-]+)+$' })], { description: 'false, or a path of literal segments, beginning with "/"' })),
  logLevel: Type.Optional(logLevel('a log level (Fastify passes it in)')),
  logSerializers: Type.Optional(instanceOf<Record<string, (value: any) => string>>('an object of serializers (Fastify passes it in)')),
  topics: Type.Optional(Type.Record(Type.String(), topicSchema, { description: 'a topic map, such as defineTopics returns' })),
  identify: Type.Optional(functionOf<Public<'identify'>>('a function of the request that returns { user, info?, expires? } or null')),
  onAuth: Type.Optional(functionOf<Public<'onAuth'>>('a function of (session, token) that returns { user, info?, expires? } or null')),
  authorize: Type.Optional(functionOf<Public<'authorize'>>('a function of { action, topic, … } that returns a boolean')),
  onJoin: Type.Optional(functionOf<Public<'onJoin'>>('a function of (session, request)')),
  onJoined: Type.Optional(functionOf<Public<'onJoined'>>('a function of (session)')),
  onLeave: Type.Optional(functionOf<Public<'onLeave'>>('a function of (session, { code, reason })')),
  onUserJoin: Type.Optional(functionOf<Public<'onUserJoin'>>('a function of { user, topic, key, info, rooms }')),
  onUserLeave: Type.Optional(functionOf<Public<'onUserLeave'>>('a function of ({ user, topic, key, info, rooms }, { code, reason })')),
  onError: Type.Optional(functionOf<Public<'onError'>>('a function of (error, session)')),
  onMessage: Type.Optional(Type.Record(Type.String(), functionOf<Public<'onMessage'>[string]>('a function of (session, payload)'), { description: 'functions of (session, payload) by topic key ("*" in the open lobby)' })),
  onDirect: Type.Optional(Type.Record(Type.String(), functionOf<Public<'onDirect'>[string]>('a function of (session, payload, direct)'), { description: 'functions of (session, payload, direct) by topic key ("*" in the open lobby)' })),
  onInvalid: Type.Union([Type.Literal('answer'), Type.Literal('ignore'), Type.Literal('close'), functionOf<Public<'onInvalid'>>('a function')], { default: 'answer', description: '"answer", "ignore", "close", or a function of (session, fault) that returns one of them' }),
  origin: Type.Union([
    Type.Literal('same'),
    Type.Literal('any'),
    Type.Array(Type.Union([Type.String(), Type.Unsafe<RegExp>({ [Kind]: 'RoomsRegExp' })])),
    functionOf<Public<'origin'>>('a function')
  ], { default: 'same', description: '"same", "any", an array of origins (strings and RegExps), or a function of (origin, request) that returns a boolean' }),
  heartbeat: Type.Union([
    Type.Literal(false),
    group({
      interval: milliseconds(10, 25_000, 'milliseconds without a byte from a peer before it is pinged, a whole number from 10'),
      timeout: milliseconds(10, 10_000, 'milliseconds to wait for a byte after a ping, a whole number from 10')
    }, 'an object with "interval" and "timeout"')
  ], { default: {}, description: 'false, or an object with "interval" and "timeout" in milliseconds from 10' }),
  expiry: group({
    notice: milliseconds(0, 30_000, 'milliseconds from the expiring frame to the end of the credentials, a whole number from 0')
  }, 'an object with "notice"'),
  limits: group({
    connections: count(100_000, 'open connections in all, a whole number from 1'),
    perAddress: Type.Optional(Type.Integer({ minimum: 1, description: 'open connections of one address, a whole number from 1' })),
    messages: count(10_000, 'frames of one member within "per", a whole number from 1'),
    per: milliseconds(1, 1_000, 'milliseconds for "messages" and "addressMessages", a whole number from 1'),
    addressMessages: Type.Optional(Type.Integer({ minimum: 1, description: 'frames of all members of one address within "per", a whole number from 1' })),
    topics: count(100_000, 'rooms at a time, a whole number from 1'),
    topicsPerConnection: count(100, 'topics that one connection joins by frames, a whole number from 1'),
    payload: count(65_536, 'bytes of a member\'s frame and of a broadcast route\'s body, a whole number from 1'),
    info: count(1_024, 'bytes of presence info as JSON, a whole number from 1'),
    pending: count(16, 'unfinished messages of one member before reading from it pauses, a whole number from 1'),
    work: count(10_000, 'unfinished calls of onMessage and onDirect, a whole number from 1'),
    mids: count(100_000, 'answers to messages with a mid that are remembered, a whole number from 1'),
    topicLength: Type.Integer({ minimum: 1, maximum: maxTopicLength, default: maxTopicLength, description: `characters of a topic name, a whole number from 1 to ${maxTopicLength}` }),
    badFrames: count(10, 'bad frames in a row before the close, a whole number from 1'),
    handshake: milliseconds(100, 10_000, 'milliseconds for an upgrade, for the body of a broadcast, and again for onJoin and for onJoined, a whole number from 100'),
    publish: milliseconds(100, 5_000, 'milliseconds that a publication waits for the broker, a whole number from 100'),
    history: count(268_435_456, 'bytes of all kept messages, a whole number from 1'),
    waiters: count(10_000, 'requests that wait for a message, a whole number from 1'),
    unfinished: milliseconds(100, 30_000, 'milliseconds from the first to the last byte of a member\'s message, a whole number from 100')
  }, 'an object of bounds'),
  slow: group({
    policy: Type.Union([...policies, functionOf<Public<'slow'>['policy']>('a function')], { default: 'close', description: '"close", "latest", "drop", or a function of (session, { bytes }) that returns one of them' }),
    bytes: count(1_048_576, slowBytes)
  }, 'an object with "policy" and "bytes"'),
  history: Type.Unsafe<NonNullable<Public<'history'>>>({ ...historySchema, default: false }),
  drain: group({
    timeout: milliseconds(0, 5_000, 'milliseconds for the whole drain, a whole number from 0'),
    batch: count(500, 'members closed at a time, a whole number from 1'),
    interval: milliseconds(0, 50, 'milliseconds from one batch to the next, a whole number from 0'),
    retry: group({
      min: milliseconds(0, 100, 'least milliseconds before a closed member reconnects, a whole number from 0'),
      max: milliseconds(0, 15_000, 'most milliseconds before a closed member reconnects, a whole number from 0')
    }, 'an object with "min" and "max"')
  }, 'an object with "timeout", "batch", "interval" and "retry"'),
  broker: Type.Optional(instanceOf<Broker>('a broker, such as memoryBroker()', ['start', 'attach', 'detach', 'publish', 'control', 'close'])),
  websocket: group({
    options: Type.Optional(instanceOf<WebSocketOptions | undefined>('an object of ws server options'))
  }, 'an object with "options" for @fastify/websocket'),
  routes: group({
    socket: routeSchema('an object of hooks, config, constraints and logLevel'),
    broadcast: routeSchema('an object of hooks, config, constraints and logLevel')
  }, 'an object with "socket" and "broadcast"'),
  asyncapi: Type.Union([
    Type.Boolean(),
    group({
      routePrefix: Type.Unsafe<`/${string}`>(Type.String({ pattern: '^(?:/[A-Za-z0-9_.~-]+)+$', default: '/asyncapi', description: 'a path of literal segments, beginning with "/"' })),
      info: Type.Optional(instanceOf<Partial<AsyncApiInfo>>('an object with "title", "version" and other members of an AsyncAPI info')),
      servers: Type.Optional(instanceOf<Record<string, AsyncApiServer>>('an object of AsyncAPI servers by name')),
      hooks: group({
        onRequest: Type.Optional(hooks<'onRequest'>()),
        preHandler: Type.Optional(hooks<'preHandler'>())
      }, 'an object with "onRequest" and "preHandler"'),
      transform: Type.Optional(functionOf<NonNullable<AsyncApiRoutes['transform']>>('a function of (document, request) that returns the document'))
    }, 'an object with "routePrefix", "info", "servers", "hooks" and "transform"')
  ], { default: false, namesMember: true, description: 'true, false, or an object with "routePrefix", "info", "servers", "hooks" and "transform"' })
}, { additionalProperties: false, description: 'an object' })

/** Options after validation: with all defaults, frozen. */
export type ResolvedOptions = Readonly<Static<typeof optionsSchema>>

function show (value: unknown): string {
  if (typeof value === 'function') return 'a function'
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'an array' : 'an object'
  return typeof value === 'string' ? JSON.stringify(value.slice(0, 64)) : String(value)
}

/**
 * Returns a frozen copy of an option group with its defaults; any other value is returned as it is. Value.Default is not used, because it
 * would write into the host's objects, clone schemas, which are known by identity, and throw on functions.
 */
function fillIn (given: unknown, schema: TSchema): unknown {
  const value = given === undefined ? schema.default : given
  const inner = schema[Kind] === 'Union' ? (schema.anyOf as TSchema[]).find(branch => branch[Kind] === 'Object') : schema
  if (inner?.[Kind] !== 'Object' || typeof value !== 'object' || value === null || Array.isArray(value)) return value
  const properties = inner.properties as TProperties
  const members = { ...properties, ...value as Record<string, unknown> }
  return Object.freeze(Object.fromEntries(Object.keys(members)
    .map(name => {
      const member = (value as Record<string, unknown>)[name]
      return [name, Object.hasOwn(properties, name) ? fillIn(member, properties[name]!) : member]
    })
    .filter(([, member]) => member !== undefined)))
}

/**
 * Validates options, fills in the defaults and freezes the result.
 * @throws FST_ROOMS_INVALID_OPTION, which names the option and what it takes
 */
export function resolveOptions (given: unknown): ResolvedOptions {
  const options = fillIn(given ?? {}, optionsSchema)
  // The first error names the option. A union reports itself before its branches, and its description is the most useful.
  let error = Value.Errors(optionsSchema, options).First()
  if (error?.schema['namesMember'] === true && typeof error.value === 'object' && error.value !== null) {
    // An object is meant to be the branch of the union that takes one.
    const { path, schema, value } = error
    const inner = Value.Errors((schema['anyOf'] as TSchema[]).find(branch => branch[Kind] === 'Object')!, value).First()!
    error = { ...inner, path: path + inner.path }
  }
  if (error !== undefined) {
    const name = error.path.slice(1).replaceAll('/', '.').replaceAll('~1', '/').replaceAll('~0', '~')
    const takes = error.type === ValueErrorType.ObjectAdditionalProperties ? 'nothing: there is no such option' : String(error.schema.description)
    throw new FST_ROOMS_INVALID_OPTION(name === '' ? 'options' : name, takes, show(error.value))
  }
  return options as ResolvedOptions
}
