import { EventEmitter } from 'node:events'
import fastifyWebsocket from '@fastify/websocket'
import type { FastifyInstance } from 'fastify'
import { documentOf } from './asyncapi/document.ts'
import { memoryBroker } from './brokers/memory.ts'
import { FST_ROOMS_ALREADY_REGISTERED, FST_ROOMS_DRAIN_TOO_LONG, FST_ROOMS_HANDLER_MISSING, FST_ROOMS_INVALID_OPTION, FST_ROOMS_NO_HISTORY, FST_ROOMS_NO_SHARED_PRESENCE, FST_ROOMS_OPEN_BROADCAST, FST_ROOMS_WEBSOCKET_REGISTERED, FST_ROOMS_WEBSOCKET_TOO_OLD } from './errors.ts'
import type { AddressLimits } from './limits/addresses.ts'
import type { Hooks } from './hub/ports.ts'
import type { DeflateOptions } from './transport/ws/deflate.ts'
import { requestRefused } from './hub/events.ts'
import { Hub } from './hub/hub.ts'
import { resolveOptions, type ResolvedOptions } from './options.ts'
import { payloadCompiler, schemaCompiler } from './topics/payload.ts'
import { HubRooms } from './api/rooms.ts'
import { compilersFor, list } from './routes/add-route.ts'
import { otherServersOf } from './server/bindings.ts'
import { broadcastRoute } from './routes/broadcast.ts'
import { documentRoutes } from './routes/asyncapi.ts'
import { hostAjv } from './routes/host-ajv.ts'
import { injectClient } from './api/inject.ts'
import { checkOrigins } from './routes/origin.ts'
import { redactLogs } from './server/redact-logs.ts'
import { decorateRequests } from './api/request-rooms.ts'
import { drainTogether } from './server/shared-drain.ts'
import { multiplexRoute } from './routes/multiplex.ts'
import { socketRoute } from './routes/topic.ts'
import { listenForErrors } from './routes/upgrade.ts'
import { UpgradeGuard } from './server/upgrade-guard.ts'
import { kAccess, kInside, kRefusal } from './symbols.ts'
import { TopicRegistry } from './topics/registry.ts'

/** The largest frame in payloads, to leave space for the envelope, and to answer frames that are a little too large. */
const maxPayloadFactor = 2

/** Members of one address that may send at their full rate, unless `limits.addressMessages` is given. */
const addressFactor = 10

/** Whether `authorize` or a hook of the host can refuse requests of a route. */
function isGuarded ({ authorize, routes }: ResolvedOptions, route: 'socket' | 'broadcast'): boolean {
  return authorize !== undefined || (['onRequest', 'preParsing', 'preValidation', 'preHandler'] as const).some(hook => list(routes[route][hook]).length > 0)
}

/**
 * Checks options that depend on each other.
 * @throws the error of the first fault
 */
function checkTogether (app: FastifyInstance, options: ResolvedOptions, registry: TopicRegistry): void {
  const { pluginTimeout = 10_000 } = app.initialConfig as { pluginTimeout?: number }
  if (pluginTimeout > 0 && options.drain.timeout >= pluginTimeout) throw new FST_ROOMS_DRAIN_TOO_LONG(options.drain.timeout, pluginTimeout)

  const { min, max } = options.drain.retry
  if (min > max) throw new FST_ROOMS_INVALID_OPTION('drain.retry', 'a "min" that is not above "max"', `min ${min} and max ${max}`)

  checkOrigins(options.origin)
  for (const option of ['onMessage', 'onDirect'] as const) {
    for (const key of Object.keys(options[option] ?? {})) {
      const definition = registry.definitions.find(known => known.key === key)
      if (definition === undefined) throw new FST_ROOMS_INVALID_OPTION(option, 'functions by topic key', JSON.stringify(key))
      if (definition.publish === null) throw new FST_ROOMS_INVALID_OPTION(`${option}.${key}`, 'nothing: members of this topic may not publish', 'a function')
    }
  }
  for (const { key, converted, post, history, presence } of registry.definitions) {
    if (history !== null && options.broker !== undefined && (!options.broker.capabilities.history || options.broker.history === undefined)) throw new FST_ROOMS_NO_HISTORY(key)
    if (presence !== null && options.broker !== undefined && options.broker.inProcess !== true && !options.broker.capabilities.presence) throw new FST_ROOMS_NO_SHARED_PRESENCE(key)
    if (converted && !Object.hasOwn(options.onMessage ?? {}, key)) throw new FST_ROOMS_HANDLER_MISSING(key)
    if (!registry.open && post !== false && !isGuarded(options, 'broadcast')) throw new FST_ROOMS_OPEN_BROADCAST(key)
  }
}

/** Returns the options of `perMessageDeflate`; `undefined` if compression is off. */
function deflateOptions (given: unknown): DeflateOptions | undefined {
  if (given === true) return {}
  return typeof given === 'object' && given !== null ? given : undefined
}

/** Returns the bounds of one address. By default its rate and its burst are those of ten members of the topic with the highest. */
function addressLimits ({ limits: { perAddress, messages, per, addressMessages } }: ResolvedOptions, { definitions }: TopicRegistry): AddressLimits {
  const highest = Math.max(messages, ...definitions.flatMap(({ rate }) => [rate.capacity, rate.capacity / rate.per * per]))
  return { connections: perAddress, rate: { capacity: addressMessages ?? Math.round(addressFactor * highest), per }, rateIsGiven: addressMessages !== undefined }
}

function hooksOf (options: ResolvedOptions): Hooks {
  return {
    authorize: options.authorize,
    onMessage: new Map(Object.entries(options.onMessage ?? {})),
    onDirect: new Map(Object.entries(options.onDirect ?? {})),
    onAuth: options.onAuth,
    onJoined: options.onJoined,
    onLeave: options.onLeave,
    onUserJoin: options.onUserJoin,
    onUserLeave: options.onUserLeave,
    onError: options.onError,
    onInvalid: options.onInvalid
  }
}

/** Returns the size of the largest frame that any topic takes, in bytes. */
function largestPayload ({ definitions }: TopicRegistry): number {
  return Math.max(...definitions.map(({ maxPayload }) => maxPayload))
}

/** Returns the size of the largest frame that is read, in bytes. */
function largestFrame (registry: TopicRegistry): number {
  return largestPayload(registry) * maxPayloadFactor
}

/** Returns the path, below the prefix, of connections that join their topics by frames: by default the prefix itself. `undefined` if there is none. */
function multiplexPath ({ multiplex, prefix = '/' }: ResolvedOptions): string | undefined {
  if (multiplex !== undefined) return multiplex === false ? undefined : multiplex
  return prefix === '/' || prefix === '' ? undefined : ''
}

/** Registers @fastify/websocket in the plugin's own scope. It takes upgrades from `upgrades` and not from the server, so that the host may register it later. */
async function registerWebSocket (scope: FastifyInstance, options: ResolvedOptions, registry: TopicRegistry, upgrades: EventEmitter): Promise<void> {
  const { perMessageDeflate, ...others } = options.websocket.options ?? {}
  const deflate = deflateOptions(perMessageDeflate)
  await scope.register(fastifyWebsocket, {
    options: { maxPayload: largestFrame(registry), ...others, perMessageDeflate: deflate === undefined ? false : { serverNoContextTakeover: true, ...deflate }, server: upgrades as never },
    // The hub has ended all sessions before this.
    preClose (done) {
      scope.websocketServer.close()
      done()
    }
  })
}

/**
 * Refuses a ws without bounds on fragments and chunks (CVE-2026-45736, CVE-2026-48779). Such a version has no options for them. The host's ws
 * may be any version that @fastify/websocket allows.
 * @throws FST_ROOMS_WEBSOCKET_TOO_OLD
 */
function checkFragments ({ options }: { options: { maxFragments?: number | undefined, maxBufferedChunks?: number | undefined } }): void {
  if (options.maxFragments === undefined || options.maxBufferedChunks === undefined) throw new FST_ROOMS_WEBSOCKET_TOO_OLD()
}

/** The plugin function: options → hub → decorators → routes → hooks. */
export async function rooms (app: FastifyInstance, given: unknown): Promise<void> {
  const options = resolveOptions(given)
  if (app.hasDecorator('rooms')) throw new FST_ROOMS_ALREADY_REGISTERED()
  const hosted = app.hasDecorator('websocketServer')
  if (hosted && options.websocket.options !== undefined) throw new FST_ROOMS_WEBSOCKET_REGISTERED()

  const shared = app.getSchemas()
  const compile = schemaCompiler(shared, hostAjv(app))
  const registry = new TopicRegistry(options.topics, payloadCompiler(compile, shared), options)
  checkTogether(app, options, registry)

  const hub = new Hub(options.broker ?? memoryBroker(), hooksOf(options), {
    heartbeat: options.heartbeat,
    notice: options.expiry.notice,
    limits: options.limits,
    address: addressLimits(options, registry),
    drain: options.drain,
    // The plugin's own WebSocket server has the bound from its options.
    maxPayload: hosted ? largestFrame(registry) : Infinity,
    deflate: deflateOptions((hosted ? app.websocketServer.options : options.websocket.options)?.perMessageDeflate)
  }, app.log)
  let routes: FastifyInstance = app
  const upgrades = hosted ? undefined : new EventEmitter()
  const { asyncapi } = options
  const path = multiplexPath(options)
  const document = documentOf(() => ({
    definitions: registry.definitions,
    shared,
    prefix: routes.prefix.replace(/\/$/, ''),
    multiplex: path === undefined ? undefined : routes.prefix.replace(/\/$/, '') + path,
    topicLength: options.limits.topicLength,
    topicsPerConnection: options.limits.topicsPerConnection,
    identifies: options.identify !== undefined,
    renews: options.onAuth !== undefined
  }), typeof asyncapi === 'boolean' ? {} : asyncapi)
  const api = hub.rooms = new HubRooms(hub, registry, (path, injectOptions) => injectClient(routes, upgrades, path, injectOptions), document)
  const inside = api[kInside]
  hub.find = topic => registry.find(topic)
  app.decorate('rooms', hub.rooms)
  decorateRequests(app, hub, registry)
  await hub.start()

  const guard = UpgradeGuard.of(app.server, options.limits.handshake, options.drain.timeout, () => {
    hub.counters.refusals.handshake++
    requestRefused(hub.rooms, 'handshake')
  })
  hub.kicks.keep = guard.timeout
  app.addHook('onListen', async () => {
    for (const server of otherServersOf(app)) guard.addServer(server)
  })
  app.addHook('preClose', async () => {
    for (const client of inside.clients) client.close()
  })
  // Added before the hook of @fastify/websocket, which would close without a code.
  drainTogether(app, hub)
  app.addHook('onClose', () => hub.close())

  await app.register(async scope => {
    routes = scope
    scope.decorateRequest(kAccess as never, null as never)
    scope.decorateRequest(kRefusal as never, null as never)
    redactLogs(scope)
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('application/json', { parseAs: 'string' }, scope.getDefaultJsonParser('error', 'error'))
    if (upgrades !== undefined) {
      await registerWebSocket(scope, options, registry, upgrades)
      scope.addHook('onReady', async () => { guard.routeTo(upgrades) })
    }
    checkFragments(scope.websocketServer)
    listenForErrors(scope.websocketServer)
    // Runs after the drain, when no upgrade can become a WebSocket any more.
    scope.addHook('preClose', async () => { guard.removeHub() })
    for (const definition of registry.definitions) {
      const compilers = compilersFor(definition, compile)
      socketRoute(scope, { hub, registry, options }, definition, compilers, guard)
      if (definition.post !== false) broadcastRoute(scope, { hub, registry, options }, definition, compilers, guard)
    }
    if (path !== undefined) multiplexRoute(scope, { hub, registry, options }, path, largestPayload(registry), guard)
    if (asyncapi !== false) documentRoutes(scope, asyncapi, document)
    const mounted = scope.prefix.replace(/\/$/, '')
    inside.paths = { prefix: mounted, multiplex: path === undefined ? false : mounted + path }
  }, {
    prefix: options.prefix?.replace(/\/$/, '') ?? '',
    // Set here, because Fastify ignores the log options of a plugin without encapsulation. They apply to the routes of the plugin.
    ...(options.logLevel === undefined ? {} : { logLevel: options.logLevel }),
    ...(options.logSerializers === undefined ? {} : { logSerializers: options.logSerializers })
  })

  if (registry.open && !(isGuarded(options, 'socket') && isGuarded(options, 'broadcast'))) {
    app.addHook('onReady', async () => {
      hub.log.warn({}, 'fastify-rooms is an open lobby: every client may join any topic, publish and broadcast. Declare "topics" to restrict the topics, give "authorize" (or hooks in "routes") to restrict the clients')
    })
  }
}
