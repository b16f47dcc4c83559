import { once } from 'node:events'
import { Agent, request as httpRequest, type ClientRequest, type IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import { Type } from '@sinclair/typebox'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import { createApp, createRooms, listen, until, type AnyOptions } from './helpers/app.ts'

type Handler = (request: FastifyRequest, reply: FastifyReply) => unknown

/** An app with one route, and the messages that a worker in the room "news" has received. */
async function create (t: Test, handler: Handler, options: AnyOptions = {}, more: (app: FastifyInstance) => void = () => {}) {
  const app = await createRooms(t, { onError: error => { errors.push(error) }, ...options })
  const errors: Error[] = []
  const heard: unknown[] = []
  more(app)
  app.route({ method: ['GET', 'POST'], url: '/act', handler: handler as never })
  await app.ready()
  const worker = app.rooms.subscribe('news')
  // Ends with the app.
  ;(async () => { for await (const payload of worker) heard.push(payload) })()
  return { app, heard, errors }
}

const turns = async (): Promise<void> => { for (let i = 0; i < 10; i++) await new Promise(resolve => setImmediate(resolve)) }

/** Returns the messages before a marker that is broadcast last, because the topic keeps its order. */
async function marked (app: FastifyInstance, heard: unknown[]): Promise<unknown[]> {
  await turns()
  await app.rooms.broadcast('news', 'marker')
  await until(() => heard.at(-1) === 'marker')
  return heard.slice(0, -1)
}

function get (url: string, method = 'GET', agent?: Agent): ClientRequest {
  const [host, port] = url.split(':') as [string, string]
  const request = httpRequest({ host, port, path: '/act', method, ...(agent === undefined ? {} : { agent }) })
  request.on('error', () => {})
  request.end()
  return request
}

async function status (request: ClientRequest): Promise<number> {
  const [response] = await once(request, 'response') as [IncomingMessage]
  response.resume()
  await once(response, 'end')
  return response.statusCode!
}

t.test('broadcasts of a handler are published after its response has succeeded, in order', async t => {
  let duringHandler: unknown[] = []
  const { app, heard } = await create(t, async request => {
    t.equal(request.rooms.broadcast('news', 1), undefined)
    request.rooms.broadcast('news', { n: 2 })
    request.rooms.broadcast('news', 'three')
    await turns()
    duringHandler = [...heard]
    return 'ok'
  })
  const response = await app.inject('/act')
  t.equal(response.statusCode, 200)
  t.same(duringHandler, [], 'no broadcast before the response')
  t.same(await marked(app, heard), [1, { n: 2 }, 'three'])
})

t.test('broadcasts also wait for the response over a socket, until it is on its way', async t => {
  const { app, heard } = await create(t, async (request, reply) => {
    request.rooms.broadcast('news', 1)
    reply.code(201)
    return { ok: true }
  })
  let atResponse: unknown[] | undefined
  const url = await listen(app)
  const request = get(url)
  request.on('response', () => { atResponse = [...heard] })
  t.equal(await status(request), 201)
  t.ok(atResponse)
  t.same(await marked(app, heard), [1])
})

t.test('except excludes one session', async t => {
  const { app, heard } = await create(t, async (request, reply) => {
    request.rooms.broadcast('news', 1, { except: 'somebody' })
    t.throws(() => request.rooms.broadcast('news', 1, { except: 7 as never }), { code: 'FST_ROOMS_INVALID_ARGUMENT' })
    return 'ok'
  })
  await app.inject('/act')
  t.same(await marked(app, heard), [1])
})

t.test('request.rooms is one object for the whole request', async t => {
  const { app } = await create(t, async request => request.rooms === request.rooms) // eslint-disable-line no-self-compare
  t.equal((await app.inject('/act')).body, 'true')
})

t.test('if the response fails, no broadcast is published', async t => {
  const failures: [string, number, Handler][] = [
    ['a throw', 500, async () => { throw new Error('no') }],
    ['a throw with a status', 403, async () => { throw Object.assign(new Error('no'), { statusCode: 403 }) }],
    ['a code', 409, async (_request, reply) => { reply.code(409); return 'conflict' }],
    ['a code of exactly 400', 400, async (_request, reply) => reply.code(400).send()]
  ]
  for (const [name, code, fail] of failures) {
    t.test(name, async t => {
      const { app, heard } = await create(t, (request, reply) => {
        request.rooms.broadcast('news', 1)
        return fail(request, reply)
      })
      t.equal((await app.inject('/act')).statusCode, code)
      t.equal(await status(get(await listen(app))), code)
      t.same(await marked(app, heard), [])
    })
  }
})

t.test('a redirect and an empty response are successes', async t => {
  const answers: [number, Handler, string?][] = [
    [302, async (_request, reply) => reply.redirect('/')],
    [204, async (_request, reply) => reply.code(204).send()],
    [200, async () => 'of a HEAD', 'HEAD'],
    [200, (_request, reply) => { reply.send(Buffer.from('callback style')) }]
  ]
  for (const [code, answer, method = 'GET'] of answers) {
    const { app, heard } = await create(t, (request, reply) => {
      request.rooms.broadcast('news', code)
      return answer(request, reply)
    })
    t.equal(await status(get(await listen(app), method)), code)
    t.same(await marked(app, heard), [code])
  }
})

t.test('an invalid payload throws in the handler, with its status, and is not published', async t => {
  const { app, heard } = await create(t, async request => {
    request.rooms.broadcast('news', 1)
    request.rooms.broadcast('news', 'text')
    t.fail('the broadcast did not throw')
  }, { topics: { news: { message: Type.Union([Type.Number(), Type.Literal('marker')]) } } })
  const response = await app.inject('/act')
  t.equal(response.statusCode, 400)
  t.match(response.json(), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
  t.same(await marked(app, heard), [])
})

t.test('an undeclared topic throws in the handler', async t => {
  const { app } = await create(t, async request => { request.rooms.broadcast('weather', 1) }, { topics: { news: {} } })
  t.match((await app.inject('/act')).json(), { statusCode: 404, code: 'FST_ROOMS_NO_SUCH_TOPIC' })
})

t.test('a payload is serialized at the call', async t => {
  const { app, heard } = await create(t, async request => {
    const payload = { n: 1 }
    request.rooms.broadcast('news', payload)
    payload.n = 2
    return 'ok'
  })
  await app.inject('/act')
  t.same(await marked(app, heard), [{ n: 1 }])
})

t.test('a streamed response succeeds at its end', async t => {
  const bodies: [string, () => unknown][] = [
    ['of Node.js', () => Readable.from(['a', 'b'])],
    ['of the web', () => ReadableStream.from([Buffer.from('a'), Buffer.from('b')])],
    ['in a Response', () => new Response(ReadableStream.from([Buffer.from('ab')]))]
  ]
  for (const [name, body] of bodies) {
    t.test(name, async t => {
      const { app, heard } = await create(t, async request => {
        request.rooms.broadcast('news', 1)
        return body()
      })
      t.equal(await status(get(await listen(app))), 200)
      t.same(await marked(app, heard), [1])
    })
  }
})

t.test('a stream that fails drops the broadcasts, before or after its first byte', async t => {
  async function * failing (first: boolean) {
    if (first) yield Buffer.from('a')
    await turns()
    throw new Error('the source broke')
  }
  const bodies: [string, (first: boolean) => unknown][] = [
    ['of Node.js', first => Readable.from(failing(first))],
    ['of the web', first => ReadableStream.from(failing(first))],
    ['in a Response', first => new Response(ReadableStream.from(failing(first)))]
  ]
  for (const [name, body] of bodies) {
    for (const first of [true, false]) {
      t.test(`${name}, ${first ? 'after' : 'before'} its first byte`, async t => {
        const { app, heard } = await create(t, async request => {
          request.rooms.broadcast('news', 1)
          return body(first)
        })
        const request = get(await listen(app))
        request.on('response', response => { response.on('error', () => {}).resume() })
        await once(request, 'close')
        t.same(await marked(app, heard), [])
      })
    }
  }
})

t.test('a client that disconnects before the handler succeeds does not stop the broadcasts', async t => {
  for (const used of ['before', 'after']) {
    t.test(`request.rooms is first used ${used} the disconnect`, async t => {
      let reached = false
      let finished = false
      const { app, heard } = await create(t, async (request, reply) => {
        if (used === 'before') request.rooms.broadcast('news', 1)
        reached = true
        await until(() => reply.raw.destroyed)
        await turns()
        if (used === 'after') request.rooms.broadcast('news', 1)
        finished = true
        return { ok: true }
      })
      const request = get(await listen(app))
      await until(() => reached)
      request.destroy()
      await until(() => finished)
      t.same(await marked(app, heard), [1])
    })
  }
})

t.test('if a client disconnects before the handler fails or answers with a stream, no broadcast is published', async t => {
  const ends: [string, () => unknown][] = [
    ['a throw', () => { throw new Error('no') }],
    ['a stream', () => Readable.from(['never read'])]
  ]
  for (const [name, end] of ends) {
    t.test(name, async t => {
      let reached = false
      let finished = false
      const { app, heard } = await create(t, async (request, reply) => {
        request.rooms.broadcast('news', 1)
        reached = true
        await until(() => reply.raw.destroyed)
        await turns()
        finished = true
        return end()
      })
      const request = get(await listen(app))
      await until(() => reached)
      request.destroy()
      await until(() => finished)
      t.same(await marked(app, heard), [])
    })
  }
})

t.test('if a client disconnects during a streamed success, the broadcasts are published', async t => {
  async function * endless () { for (;;) { yield Buffer.alloc(1_000); await turns() } }
  for (const [name, body] of [['of Node.js', () => Readable.from(endless())], ['of the web', () => ReadableStream.from(endless())]] as const) {
    t.test(name, async t => {
      let raw!: FastifyReply['raw']
      const { app, heard } = await create(t, async (request, reply) => {
        raw = reply.raw
        request.rooms.broadcast('news', 1)
        return body()
      })
      const request = get(await listen(app))
      const [response] = await once(request, 'response') as [IncomingMessage]
      response.on('error', () => {})
      await once(response, 'data')
      t.same(heard, [], 'no broadcast before the end')
      request.destroy()
      await until(() => raw.destroyed)
      t.same(await marked(app, heard), [1])
    })
  }
})

t.test('a hijacked response counts by its final status', async t => {
  for (const [code, expected] of [[200, [1]], [500, []]] as const) {
    const { app, heard } = await create(t, (request, reply) => {
      request.rooms.broadcast('news', 1)
      reply.hijack()
      setImmediate(() => { reply.raw.writeHead(code).end('own') })
    })
    t.equal(await status(get(await listen(app))), code)
    t.same(await marked(app, heard), expected)
  }
})

t.test('a hijacked response that the client aborts counts if a head with a success was written', async t => {
  for (const [code, expected] of [[200, [1]], [500, []], [0, []]] as const) {
    t.test(code === 0 ? 'no head' : `head ${code}`, async t => {
      let raw!: FastifyReply['raw']
      const { app, heard } = await create(t, (request, reply) => {
        request.rooms.broadcast('news', 1)
        reply.hijack()
        raw = reply.raw
        if (code !== 0) raw.writeHead(code).write('first')
      })
      const request = get(await listen(app))
      request.on('response', response => { response.on('error', () => {}) })
      await until(() => raw !== undefined)
      request.destroy()
      await until(() => raw.destroyed)
      t.same(await marked(app, heard), expected)
    })
  }
})

t.test('a broadcast after the response throws an error that says so', async t => {
  for (const how of ['inject', 'a socket']) {
    t.test(how, async t => {
      let request!: FastifyRequest
      const thrown: unknown[] = []
      const { app, heard } = await create(t, async one => {
        request = one
        one.rooms.broadcast('news', 1)
        return 'ok'
      })
      let unused!: FastifyRequest
      const other = await create(t, async one => { unused = one; return 'ok' })
      if (how === 'inject') {
        await app.inject('/act')
        await other.app.inject('/act')
      } else {
        await status(get(await listen(app)))
        await status(get(await listen(other.app)))
      }
      for (const late of [request, unused]) {
        try {
          late.rooms.broadcast('news', 2)
        } catch (error) {
          thrown.push(error)
        }
      }
      t.match(thrown, [{ code: 'FST_ROOMS_RESPONSE_ENDED' }, { code: 'FST_ROOMS_RESPONSE_ENDED' }])
      t.same(await marked(app, heard), [1])
    })
  }
})

t.test('once the app has closed a broadcast throws, and a waiting one goes to onError', async t => {
  let request!: FastifyRequest
  let reply!: FastifyReply
  const { app, errors } = await create(t, (one, two) => {
    request = one
    reply = two
    one.rooms.broadcast('news', 1)
    two.hijack()
  })
  const pending = app.inject('/act')
  await until(() => reply !== undefined)
  await app.close()
  t.throws(() => request.rooms.broadcast('news', 2), { code: 'FST_ROOMS_CLOSED' })
  reply.raw.end('late')
  await pending
  await until(() => errors.length > 0)
  t.match(errors, [{ code: 'FST_ROOMS_CLOSED' }])
})

t.test('an error of the broker goes to onError', async t => {
  const broken = new Error('broker broke')
  const broker = {
    capabilities: { order: 'node', history: false, presence: true, once: 'node' } as const,
    start: async () => {},
    attach: async () => [null],
    detach: async () => {},
    publish: () => Promise.reject(broken),
    control: async () => 'gone' as const,
    close: async () => {}
  }
  const { app, errors } = await create(t, async request => {
    request.rooms.broadcast('news', 1)
    return 'ok'
  }, { broker })
  await app.inject('/act')
  await until(() => errors.length > 0)
  t.match(errors, [{ code: 'FST_ROOMS_BROKER_FAULT', cause: broken }])
})

t.test('each request of a connection has its own broadcasts', async t => {
  let n = 0
  const { app, heard } = await create(t, async (request, reply) => {
    request.rooms.broadcast('news', ++n)
    if (n === 2) reply.code(500)
    return 'ok'
  })
  const url = await listen(app)
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  t.teardown(() => { agent.destroy() })
  const codes = []
  for (let i = 0; i < 3; i++) codes.push(await status(get(url, 'GET', agent)))
  t.same(codes, [200, 500, 200])
  t.same(await marked(app, heard), [1, 3])
})

t.test('a request that does not use request.rooms adds no listener', async t => {
  const counts: number[][] = []
  const count = (reply: FastifyReply): number[] => ['finish', 'close'].map(event => reply.raw.listenerCount(event))
  const { app } = await create(t, async (request, reply) => {
    counts.push(count(reply))
    request.rooms.broadcast('news', 1)
    counts.push(count(reply))
    return 'ok'
  })
  await status(get(await listen(app)))
  t.same(counts[1], counts[0]!.map(n => n + 1), 'one listener for each event if used')
  const plain = createApp(t)
  let without: number[] = []
  plain.get('/act', async (_request, reply) => { without = count(reply); return 'ok' })
  await status(get(await listen(plain)))
  t.same(counts[0], without, 'no listener if not used')
})

t.test('a hook of the host that fails after a disconnect causes no second broadcast', async t => {
  let reached = false
  let failed = 0
  const { app, heard } = await create(t, async (request, reply) => {
    request.rooms.broadcast('news', 1)
    reached = true
    await until(() => reply.raw.destroyed)
    await turns()
    return 'ok'
  }, {}, app => {
    app.addHook('onSend', async () => {
      if (++failed === 1) throw new Error('no')
    })
  })
  const request = get(await listen(app))
  await until(() => reached)
  request.destroy()
  await until(() => failed === 2)
  t.same(await marked(app, heard), [1], 'the handler succeeded')
})
