/**
 * The client for tests, `fastify-rooms/testing`.
 */
import type { FastifyInstance } from 'fastify'
import type { ClientOptions } from './client.ts'
import type { Rooms } from './rooms.ts'

/** The members of an app that a test client uses. */
export interface TestedApp {
  inject: FastifyInstance['inject']
  rooms: Rooms<any>
}

/** The options of `createClient`, without those that the app answers. */
export interface TestClientOptions extends Pick<ClientOptions, 'token' | 'queue' | 'onerror'> {
  /** Headers of all requests, upgrades included: cookies, for example. `host` is `localhost` unless given. */
  headers?: Record<string, string> | undefined
  /** `false`: each room has its own connection. Default: several rooms share one, if the app has a route for it. */
  multiplex?: false | undefined
}

export interface UntilOptions {
  /** Milliseconds to wait. Default 5,000. */
  timeout?: number | undefined
}
