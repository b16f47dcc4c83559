import type { ClientOptions, FetchResponse } from '../../types/client.ts'
import { roomsError } from './error.ts'
import { platform } from './platform.ts'

/** Time for an answer, in milliseconds: of the function `token`, and of a request. */
const patience = 10_000

/** The client's URLs, tokens and requests. */
export interface Requests {
  /** Returns the URL of a topic, or of another path under the same origin, with the query of `url` and further parameters. */
  url (path: string, query?: Record<string, unknown>): URL
  /** The path that all topics have in common, without a slash at its end. */
  prefix (): string
  /**
   * Returns the token, or `undefined`.
   * @throws RoomsError `token`
   */
  token (expired: boolean): Promise<string | null | undefined>
  /**
   * Makes a request that carries a token. Its answer may be a refusal.
   * @throws RoomsError `unreachable`, `token`
   */
  send (url: URL, accept: string, details?: RequestDetails): Promise<FetchResponse>
  /**
   * Reads a JSON answer.
   * @throws RoomsError with the status and code of a refusal, `unreachable`, `bad_response`
   */
  get (url: URL, token?: string | null): Promise<any>
}

/** The parts of a request that most requests have no need of. */
export interface RequestDetails {
  /** Absent: the client's. */
  token?: string | null | undefined
  /** Absent: the request is aborted after 10 s, and with the client. */
  signal?: AbortSignal
  method?: string
  body?: string
  headers?: Record<string, string>
}

/** Makes the requests of a client. `ended` aborts them. */
export const createRequests = (options: ClientOptions, ended: AbortSignal): Requests => {
  const { token: given } = options
  const base = (): URL => {
    try {
      return new URL(options.url, platform.location?.href)
    } catch (cause) {
      throw roomsError('bad_url', `the client cannot resolve its url "${options.url}"`, { cause })
    }
  }
  const requests: Requests = {
    url (path, query = {}) {
      const url = base()
      url.pathname = path
      for (const name in query) if (query[name] != null) url.searchParams.set(name, `${query[name]}`)
      return url
    },
    prefix: () => base().pathname.replace(/\/$/, ''),
    token: async expired => {
      if (typeof given !== 'function') return given
      let timer
      try {
        return await Promise.race([
          given({ expired }),
          new Promise<never>((resolve, reject) => { timer = setTimeout(reject, patience, new Error('timeout')) })
        ])
      } catch (cause) {
        throw roomsError('token', `the client has got no token: ${cause}`, { cause })
      } finally {
        clearTimeout(timer)
      }
    },
    async send (url, accept, { token, headers, ...more } = {}) {
      token ??= await requests.token(false)
      const href = url.href.replace(/^ws/, 'http')
      try {
        return await (options.fetch ?? platform.fetch)(href, { signal: AbortSignal.any([ended, AbortSignal.timeout(patience)]), cache: 'no-store', ...more, headers: { accept, ...token && { authorization: `Bearer ${token}` }, ...options.headers, ...headers } })
      } catch (cause) {
        throw roomsError('unreachable', `${href} does not answer`, { cause })
      }
    },
    async get (url, token) {
      const response = await requests.send(url, 'application/json', { token })
      const { status } = response
      let body: any
      try {
        body = JSON.parse(await response.text())
      } catch {}
      if (response.ok && body) return body
      throw roomsError(body?.code ?? (response.ok ? 'bad_response' : `http_${status}`), `${url.pathname} has been answered with ${status} ${body?.message ?? response.headers.get('content-type')}`, { status, retryAfter: +response.headers.get('retry-after')! * 1_000 })
    }
  }
  return requests
}
