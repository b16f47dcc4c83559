import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import type { FetchLike } from '../../types/client.ts'
import type { TestedApp } from '../../types/testing.ts'

/** Returns a function like `fetch` whose requests go into an app of the same process. Event streams are read while they are written. */
export function injectedFetch (app: TestedApp): FetchLike {
  return async (href, { method = 'GET', headers, body, signal }) => {
    const { pathname, search, host } = new URL(href)
    signal?.throwIfAborted()
    const aborted = new Promise<never>((resolve, reject) => { signal?.addEventListener('abort', () => { reject(signal.reason) }) })
    const answer = await Promise.race([aborted, app.inject({
      method: method as 'GET',
      url: pathname + search,
      headers: { host, ...headers },
      ...body === undefined ? {} : { payload: body },
      payloadAsStream: true
    })])
    const stream = answer.stream()
    // An aborted stream has an error; its reader gets it.
    stream.on('error', () => {})
    const abort = (): void => { stream.destroy(signal.reason) }
    signal?.addEventListener('abort', abort)
    stream.once('close', () => { signal?.removeEventListener('abort', abort) })
    return {
      ok: answer.statusCode >= 200 && answer.statusCode < 300,
      status: answer.statusCode,
      headers: { get: name => headerOf(answer.headers[name.toLowerCase()]) },
      get body () { return Readable.toWeb(stream) },
      text: () => text(stream)
    }
  }
}

/** Returns a header as `fetch` has it. */
function headerOf (value: number | string | string[] | undefined): string | null {
  return value === undefined ? null : String(value)
}
