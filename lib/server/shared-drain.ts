import type { FastifyInstance } from 'fastify'
import { kSiblings } from '../symbols.ts'

/** What is used of a hub; it may be one of another copy of this package. */
interface Sibling { drain (): Promise<void> }
type Root = FastifyInstance & { [kSiblings]?: Set<Sibling> }

/** The app that all scopes are of. */
export function rootOf (scope: FastifyInstance): FastifyInstance {
  const parent = Object.getPrototypeOf(scope) as FastifyInstance | Record<string, never>
  return 'ready' in parent ? rootOf(parent as FastifyInstance) : scope
}

/**
 * Lets the members of all hubs of an app go when it closes. Fastify runs the hooks one after the other: each hub would have its time
 * only when the one before has had its own.
 */
export function drainTogether (scope: FastifyInstance, hub: Sibling): void {
  const root = rootOf(scope) as Root
  const siblings = root[kSiblings] ??= new Set()
  siblings.add(hub)
  scope.addHook('preClose', async () => {
    await Promise.all(Array.from(siblings, sibling => sibling.drain()))
  })
}
