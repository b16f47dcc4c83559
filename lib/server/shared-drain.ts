import type { FastifyInstance } from 'fastify'
import { kDrainedHubs } from '../symbols.ts'

/** The part of a hub that is used here. The hub may come from another copy of this package. */
interface DrainedHub { drain (): Promise<void> }
type Root = FastifyInstance & { [kDrainedHubs]?: Set<DrainedHub> }

/** Returns the root app of a scope. */
export function rootOf (scope: FastifyInstance): FastifyInstance {
  const parent = Object.getPrototypeOf(scope) as FastifyInstance | Record<string, never>
  return 'ready' in parent ? rootOf(parent as FastifyInstance) : scope
}

/**
 * Drains all hubs of an app at the same time when it closes. With one hook for each hub Fastify would drain them one after the other, which
 * would take `drain.timeout` for each.
 */
export function drainTogether (scope: FastifyInstance, hub: DrainedHub): void {
  const root = rootOf(scope) as Root
  const hubs = root[kDrainedHubs] ??= new Set()
  hubs.add(hub)
  scope.addHook('preClose', async () => {
    await Promise.all(Array.from(hubs, each => each.drain()))
  })
}
