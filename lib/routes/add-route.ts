import type { FastifyInstance, FastifySchemaCompiler, FastifySerializerCompiler, RouteOptions } from 'fastify'
import { FST_ROOMS_ROUTE_TAKEN } from '../errors.ts'
import { querySchema } from './schemas.ts'
import type { Validate } from '../topics/payload.ts'
import type { TopicDefinition } from '../topics/registry.ts'

/** The compilers of the plugin's routes. They replace those of the host, such as a Zod type provider's. */
export interface Compilers {
  validatorCompiler: FastifySchemaCompiler<any>
  serializerCompiler: FastifySerializerCompiler<any>
}

/**
 * Returns the compilers of a topic's routes. The body is checked by the topic's validator, the other parts of a request by the same Ajv. Schemas of headers are for
 * documentation alone, because the plugin reads its headers itself, and refuses them with errors of its own.
 */
export function compilersFor (definition: TopicDefinition, compile: (schema: object) => Validate): Compilers {
  return {
    validatorCompiler: ({ schema, httpPart }) => {
      if (httpPart === 'headers') return () => true
      const validate = httpPart === 'body' ? definition.message.validate : null
      // The documented query has numbers, but a query consists of strings, and this Ajv does not convert them.
      return (validate ?? compile(httpPart === 'querystring' ? querySchema : schema)) as never
    },
    serializerCompiler: () => data => JSON.stringify(data)
  }
}

/** Returns the hooks of an option as an array. */
export function list<T> (hooks: T | T[] | undefined): T[] {
  return hooks === undefined ? [] : Array.isArray(hooks) ? hooks : [hooks]
}

/**
 * Adds a route.
 * @param hint - what to do besides a `prefix` if it is taken
 * @throws FST_ROOMS_ROUTE_TAKEN if the host has the same route, because it suggests a `prefix`, which Fastify's own error does not
 */
export function addRoute (scope: FastifyInstance, route: RouteOptions, hint?: string): void {
  const { method, url, constraints } = route
  const path = scope.prefix.replace(/\/$/, '') + url
  if (scope.hasRoute({ method: method as string, url: path, ...(constraints === undefined ? {} : { constraints: constraints as Record<string, any> }) })) {
    throw new FST_ROOMS_ROUTE_TAKEN(String(method), path, hint === undefined ? '' : `, ${hint}`)
  }
  scope.route(route)
}
