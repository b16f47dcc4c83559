import type { FastifyInstance } from 'fastify'
import { fastifyOptions } from '../internals.ts'
import type { HostAjv } from '../topics/payload.ts'

/**
 * Reads `Fastify({ ajv })` of the host, which `initialConfig` leaves out: its formats, keywords and plugins hold for topics, too. `{}` if a later Fastify keeps it
 * elsewhere, in which case a schema that uses them is refused as one with an unknown format or keyword; and `{}` in JTD mode, which is
 * about another kind of schema.
 */
export function hostAjv (app: FastifyInstance): HostAjv {
  const { ajv } = (fastifyOptions(app) ?? {}) as { ajv?: HostAjv & { mode?: string } }
  if (ajv === undefined || ajv.mode === 'JTD') return {}
  const { customOptions, plugins, onCreate } = ajv
  return { ...(customOptions === undefined ? {} : { customOptions }), ...(plugins === undefined ? {} : { plugins }), ...(onCreate === undefined ? {} : { onCreate }) }
}
