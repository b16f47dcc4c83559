import { EventEmitter, once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { PassThrough, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as wait } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { isEndOf } from '../lib/hub/end-cause.ts'
import { errorCodes } from '../lib/index.ts'
import { createRooms, connect, join, listen, until, type AnyOptions, type LogLine } from './helpers/app.ts'

type Work = (session: any) => Promise<unknown>

/** A server that never answers. */
async function mute (t: Test): Promise<string> {
  const server = createServer(() => {})
  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

const reason = (session: any) => session.signal.reason as Error

/** Work that the end of its session ends, in various ways. */
const ended: Record<string, Work> = {
  'timers/promises': ({ signal }) => wait(60_000, undefined, { signal }),
  'events.once': ({ signal }) => once(new EventEmitter(), 'never', { signal }),
  'AbortSignal.any': ({ signal }) => wait(60_000, undefined, { signal: AbortSignal.any([signal, AbortSignal.timeout(60_000)]) }),
  'AbortSignal.any of AbortSignal.any': ({ signal }) => wait(60_000, undefined, { signal: AbortSignal.any([AbortSignal.any([signal]), new AbortController().signal]) }),
  'a pipeline': ({ signal }) => pipeline(new PassThrough(), new Writable({ write () {} }), { signal }),
  throwIfAborted: async session => {
    await once(session.signal, 'abort')
    session.signal.throwIfAborted()
  },
  'an error of the host with the reason as its cause': async session => {
    await once(session.signal, 'abort')
    throw new Error('the search was given up', { cause: new Error('aborted', { cause: reason(session) }) })
  },
  'a send afterwards': async session => {
    await once(session.signal, 'abort')
    await session.send('too late')
  },
  'a question afterwards': async session => {
    await session.rooms.ask(session.id, 'how are you')
  }
}

/** Work that fails after the end of its session, but for a reason of its own. */
const failing: Record<string, Work> = {
  'an error of its own': async ({ signal }) => {
    await once(signal, 'abort')
    throw new Error('of its own')
  },
  'an AbortError of another signal': async ({ signal }) => {
    await once(signal, 'abort')
    return wait(60_000, undefined, { signal: AbortSignal.abort(new Error('another reason')) })
  },
  'a deadline of its own': async ({ signal }) => {
    await once(signal, 'abort')
    return wait(60_000, undefined, { signal: AbortSignal.timeout(1) })
  },
  'the end of another session': async session => {
    await once(session.signal, 'abort')
    throw Object.assign(new Error('other', { cause: new errorCodes.FST_ROOMS_SESSION_CLOSED('another') }))
  },
  'an error that is its own cause': async ({ signal }) => {
    await once(signal, 'abort')
    throw Object.defineProperty(new Error('circle'), 'cause', { get () { return this } })
  },
  'an error whose cause cannot be read': async ({ signal }) => {
    await once(signal, 'abort')
    throw new Error('outer', { cause: Object.defineProperty(new Error('inner'), 'code', { get () { throw new Error('unreadable') } }) })
  }
}

/** Places for work: options of the plugin, and the frame of a client that starts the work. */
const places: Record<string, { options: (work: Work) => AnyOptions, frame?: object }> = {
  onMessage: { options: work => ({ onMessage: { '*': work } }), frame: { type: 'message', data: 1 } },
  'authorize of a message': { options: work => ({ authorize: async context => context.action !== 'publish' || await work(context.session) as boolean }), frame: { type: 'message', data: 1, ref: 1 } },
  onAuth: { options: work => ({ onAuth: session => work(session) as never }), frame: { type: 'auth', token: 'x' } },
  'onJoin while it reads': {
    options: work => ({
      onJoin: async session => {
        for await (const message of session) await Promise.all([message, work(session)])
      }
    }),
    frame: { type: 'message', data: 1 }
  },
  'the rest of onJoin': { options: work => ({ onJoin: async session => { session[Symbol.asyncIterator](); await work(session) } }) },
  'onJoin before hello': { options: work => ({ onJoin: work }) },
  onLeave: { options: work => ({ onMessage: { '*': session => { work(session).catch(() => {}) } }, onLeave: async session => { session.signal.throwIfAborted(); await work(session) } }), frame: { type: 'message', data: 1 } }
}

async function run (t: Test, place: keyof typeof places, work: Work, by: 'peer' | 'server'): Promise<{ errors: Error[], stats: any, logs: LogLine[] }> {
  const { options, frame } = places[place]!
  const errors: Error[] = []
  const logs: LogLine[] = []
  let begun = false
  let settled = false
  const sessions: any[] = []
  const watched: Work = async session => {
    sessions.push(session)
    begun = true
    try {
      return await work(session)
    } finally {
      settled = true
    }
  }
  const app = await createRooms(t, { ...options(watched), onError: error => { errors.push(error) } }, logs)
  const url = `${await listen(app)}/rooms/news`
  const client = place === 'onJoin before hello' ? await connect(t, url) : await join(t, url)
  if (frame !== undefined) client.send(frame)
  await until(() => begun)
  if (by === 'server') sessions[0].close(4000)
  else client.socket.close()
  await client.closed
  await until(() => settled && app.rooms.stats().connections === 0)
  await wait(5)
  return { errors, stats: app.rooms.stats(), logs }
}

for (const place of Object.keys(places)) {
  t.test(`issue 8: the end of a session is not an error of ${place}`, async t => {
    const base = await mute(t)
    const works = { ...ended, fetch: ({ signal }: any) => fetch(base, { signal }), 'fetch with a deadline': ({ signal }: any) => fetch(base, { signal: AbortSignal.any([signal, AbortSignal.timeout(60_000)]) }) }
    for (const [name, work] of Object.entries(works)) {
      if (place === 'onJoin before hello' && name === 'a question afterwards') continue
      for (const by of ['peer', 'server'] as const) {
        const { errors, stats, logs } = await run(t, place, work, by)
        t.same(errors, [], `${name}, ended by the ${by}`)
        t.equal(stats.errors, 0)
        t.equal(stats.refusals.failed, 0)
        t.same(logs.filter(({ level }) => level > 30).filter(({ msg }) => !msg.startsWith('fastify-rooms is an open lobby')), [])
      }
    }
  })
}

t.test('issue 8: the end of a session in a hook is logged at debug', async t => {
  const { logs } = await run(t, 'onMessage', ended['timers/promises']!, 'peer')
  t.match(logs.filter(({ msg }) => msg === 'a hook ended with its session'), [{ level: 20, topic: 'news', session: /./, err: { code: 'ABORT_ERR' } }])
})

t.test('issue 8: a failure after the end of its session with another reason is an error', async t => {
  for (const [name, work] of Object.entries(failing)) {
    const { errors, stats } = await run(t, 'onMessage', work, 'peer')
    t.equal(errors.length, 1, name)
    t.equal(stats.errors, 1, name)
  }
})

t.test('an error during an open session never counts as its end', async t => {
  const errors: Error[] = []
  let thrown: Error | undefined
  const app = await createRooms(t, {
    onMessage: { '*': session => { throw thrown = new Error('early', { cause: new errorCodes.FST_ROOMS_SESSION_CLOSED(session.id) }) } },
    onError: error => { errors.push(error) }
  })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  t.match(await client.ask({ type: 'message', data: 1 }), { ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' } })
  t.same(errors, [thrown])
  t.equal(isEndOf({ id: 'x', state: 'open' } as never, new errorCodes.FST_ROOMS_SESSION_CLOSED('x')), false)
  t.equal(isEndOf({ id: 'x', state: 'closed' } as never, new errorCodes.FST_ROOMS_SESSION_CLOSED('x')), true)
})
