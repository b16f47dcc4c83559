import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { AsyncApiDocument, AsyncApiOptions, AsyncApiServer } from '../../types/index.ts'
import { pageOf } from '../asyncapi/page.ts'
import { policy } from '../asyncapi/style.ts'
import { toYaml } from '../asyncapi/yaml.ts'
import { FST_ROOMS_INVALID_OPTION } from '../errors.ts'
import type { ResolvedOptions } from '../options.ts'
import { isSchema } from '../schema/walk.ts'
import { addRoute, list } from './add-route.ts'

/** The option `asyncapi` if it is on. */
type DocumentOptions = Exclude<ResolvedOptions['asyncapi'], boolean>

const defaultPath = '/asyncapi'

/** Returns the server that a request was sent to; `undefined` if its host is not the name of one. */
function serverOf ({ host, protocol }: FastifyRequest): Record<string, AsyncApiServer> | undefined {
  return /^[\w.:[\]-]+$/.test(host) ? { default: { host, protocol: protocol === 'https' ? 'wss' : 'ws' } } : undefined
}

/** Adds the routes of the contract document: a page, JSON and YAML. */
export function documentRoutes (scope: FastifyInstance, given: DocumentOptions | true, documentOf: (options?: AsyncApiOptions) => AsyncApiDocument): void {
  const { routePrefix = defaultPath, servers: known, hooks, transform }: Partial<DocumentOptions> = given === true ? {} : given

  /** @throws FST_ROOMS_INVALID_OPTION if `transform` returns something else than a document */
  const documentFor = async (request: FastifyRequest): Promise<AsyncApiDocument> => {
    const servers = known === undefined ? serverOf(request) : undefined
    const document = documentOf()
    if (servers !== undefined) document.servers = servers
    const changed = await transform?.(document, request)
    if (changed === undefined) return document
    if (!isSchema(changed)) throw new FST_ROOMS_INVALID_OPTION('asyncapi.transform', 'a function that returns a document, or nothing', changed === null ? 'null' : typeof changed)
    return changed
  }

  const add = (url: string, type: string, write: (document: AsyncApiDocument, request: FastifyRequest, reply: FastifyReply) => string): void => {
    addRoute(scope, {
      method: 'GET',
      url,
      // Not a route of OpenAPI.
      schema: { hide: true } as object,
      onRequest: list(hooks?.onRequest),
      preHandler: list(hooks?.preHandler),
      async handler (request, reply) {
        const text = write(await documentFor(request), request, reply)
        // The document names the host of the request, and `transform` may make one for each client.
        return reply.header('cache-control', 'no-store').header('x-content-type-options', 'nosniff').type(`${type}; charset=utf-8`).send(text)
      }
    })
  }
  add(`${routePrefix}/json`, 'application/json', document => JSON.stringify(document))
  add(`${routePrefix}/yaml`, 'application/yaml', document => toYaml(JSON.parse(JSON.stringify(document))))
  const page = (document: AsyncApiDocument, { url }: FastifyRequest, reply: FastifyReply): string => {
    reply.header('content-security-policy', policy).header('referrer-policy', 'no-referrer')
    // The links are relative, so that they hold behind a proxy that changes the path.
    return pageOf(document, url.split('?')[0]!.endsWith('/') ? '' : `${routePrefix.split('/').at(-1)}/`)
  }
  add(routePrefix, 'text/html', page)
  if (scope.initialConfig.ignoreTrailingSlash !== true && (scope.initialConfig as { routerOptions?: { ignoreTrailingSlash?: boolean } }).routerOptions?.ignoreTrailingSlash !== true) add(`${routePrefix}/`, 'text/html', page)
}
