import type { FastifyInstance, FastifySchemaCompiler, FastifySerializerCompiler, RouteOptions } from 'fastify'
import { FST_ROOMS_ROUTE_TAKEN } from '../errors.ts'
import type { Validate } from '../topics/payload.ts'
import type { TopicDefinition } from '../topics/registry.ts'

/** Our routes bring their own compilers, so that a host's (a Zod type provider's, say) change nothing for them. */
export interface Compilers {
  validatorCompiler: FastifySchemaCompiler<any>
  serializerCompiler: FastifySerializerCompiler<any>
}

/** The body goes through the topic's one validator; the rest of a request through the same Ajv. */
export function compilersFor (definition: TopicDefinition, compile: (schema: object) => Validate): Compilers {
  return {
    validatorCompiler: ({ schema, httpPart }) => {
      const validate = httpPart === 'body' ? definition.message.validate : null
      return (validate ?? compile(schema)) as never
    },
    serializerCompiler: () => data => JSON.stringify(data)
  }
}

/** The hooks of an option: none, one or several. */
export function list<T> (hooks: T | T[] | undefined): T[] {
  return hooks === undefined ? [] : Array.isArray(hooks) ? hooks : [hooks]
}

/** @throws FST_ROOMS_ROUTE_TAKEN, which says `prefix`, before Fastify would say that the route is there already */
export function addRoute (scope: FastifyInstance, route: RouteOptions): void {
  const { method, url, constraints } = route
  const path = scope.prefix.replace(/\/$/, '') + url
  if (scope.hasRoute({ method: method as string, url: path, ...(constraints === undefined ? {} : { constraints: constraints as Record<string, any> }) })) {
    throw new FST_ROOMS_ROUTE_TAKEN(String(method), path)
  }
  scope.route(route)
}
