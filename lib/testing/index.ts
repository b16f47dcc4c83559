import type { Client } from '../../types/client.ts'
import type { TestClientOptions, TestedApp } from '../../types/testing.ts'
import type { Topics } from '../../types/topics.ts'
import type { HubRooms } from '../api/rooms.ts'
import { createClient } from '../client/index.ts'
import { FST_ROOMS_INVALID_ARGUMENT } from '../errors.ts'
import { kInside } from '../symbols.ts'
import { injectedFetch } from './fetch.ts'
import { injectedWebSocket } from './websocket.ts'

export { until } from './until.ts'
export type * from '../../types/client.ts'
export type * from '../../types/testing.ts'

/**
 * Makes a client that is joined to an app in the same process, without a port: the client of `fastify-rooms/client`, through the app's router, hooks and limits. It
 * closes when the app begins to close.
 *
 * ```ts
 * const room = createTestClient(app).room('chat:42')
 * await until(room, ({ status }) => status === 'open')
 * ```
 *
 * @param app - the app, or the scope in which the plugin is registered
 * @typeParam T - the topic map; by default the registered one
 * @throws `FST_ROOMS_INVALID_ARGUMENT` if the plugin is not registered there, or not loaded yet
 */
export function createTestClient<T = Topics> (app: TestedApp, options: TestClientOptions = {}): Client<T> {
  const inside = (app?.rooms as Partial<HubRooms> | undefined)?.[kInside]
  if (inside?.paths === undefined) throw new FST_ROOMS_INVALID_ARGUMENT('app', 'an app in which fastify-rooms is loaded: "await app.register(fastifyRooms)"')
  const { clients, paths: { prefix, multiplex } } = inside
  const { headers = {}, ...others } = options
  const client = createClient<T>({
    ...others,
    headers,
    url: `http://localhost${prefix}`,
    multiplex: options.multiplex ?? multiplex,
    WebSocket: injectedWebSocket(app.rooms, headers),
    fetch: injectedFetch(app)
  })
  clients.add(client)
  return {
    ...client,
    close () {
      clients.delete(client)
      client.close()
    }
  }
}
