import type { FastifyInstance } from 'fastify'
import type { HostAjv } from '../topics/payload.ts'

/** Fastify keeps its options under a symbol that it does not export, on the root instance; `initialConfig` leaves `ajv` out. */
function optionsOf (app: FastifyInstance): unknown {
  for (let at: unknown = app; typeof at === 'object' && at !== null; at = Object.getPrototypeOf(at)) {
    const symbol = Object.getOwnPropertySymbols(at).find(({ description }) => description === 'fastify.options')
    if (symbol !== undefined) return (at as Record<symbol, unknown>)[symbol]
  }
  return undefined
}

/**
 * Reads `Fastify({ ajv })` of the host: its formats, keywords and plugins hold for topics, too. `{}` if a later Fastify keeps it
 * elsewhere, in which case a schema that uses them is refused as one with an unknown format or keyword; and `{}` in JTD mode, which is
 * about another kind of schema.
 */
export function hostAjv (app: FastifyInstance): HostAjv {
  const { ajv } = (optionsOf(app) ?? {}) as { ajv?: HostAjv & { mode?: string } }
  if (ajv === undefined || ajv.mode === 'JTD') return {}
  const { customOptions, plugins, onCreate } = ajv
  return { ...(customOptions === undefined ? {} : { customOptions }), ...(plugins === undefined ? {} : { plugins }), ...(onCreate === undefined ? {} : { onCreate }) }
}
