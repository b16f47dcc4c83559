import type { FastifyInstance } from 'fastify'
import { fastifyOptions } from '../internals.ts'
import type { HostAjv } from '../topics/payload.ts'

/**
 * Returns `Fastify({ ajv })` of the host, which `initialConfig` does not include, because its formats, keywords and plugins apply to topics, too.
 * Returns `{}` in JTD mode, which is for another kind of schema, and if Fastify keeps its options elsewhere; then schemas with the host's
 * formats or keywords are refused.
 */
export function hostAjv (app: FastifyInstance): HostAjv {
  const { ajv } = (fastifyOptions(app) ?? {}) as { ajv?: HostAjv & { mode?: string } }
  if (ajv === undefined || ajv.mode === 'JTD') return {}
  const { customOptions, plugins, onCreate } = ajv
  return { ...(customOptions === undefined ? {} : { customOptions }), ...(plugins === undefined ? {} : { plugins }), ...(onCreate === undefined ? {} : { onCreate }) }
}
