import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { connect as connectHttp2, constants } from 'node:http2'
import { request as requestTls } from 'node:https'
import { connect as connectTcp } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import fastifyRooms from '../lib/index.ts'
import { createApp, createRooms, join, listen, until, type AnyOptions, type LogLine } from './helpers/app.ts'
import { EventClient, eventsIn, joinStream, openStream } from './helpers/event-stream.ts'
import { tls, tlsClient } from './helpers/tls.ts'

async function serve (t: Test, options: AnyOptions = {}, logs: LogLine[] = []) {
  const app = await createRooms(t, { topics: { news: { history: true, publish: true, presence: true } as never, plain: { publish: true } }, ...options }, logs)
  return { app, rooms: app.rooms as any, url: await listen(app) }
}

async function serveSlow (t: Test, asked: (answer: () => void) => void) {
  const app = await createRooms(t, { topics: { news: { presence: true } } })
  app.get('/slow', async () => new Promise(resolve => { asked(() => { resolve('done') }) }))
  return { app, rooms: app.rooms as any, url: await listen(app) }
}

/** An app with one member over HTTP/2 that reads nothing, and for which more than a megabyte waits. */
async function serveStuck (t: Test, options: AnyOptions) {
  const app = createApp(t, { http2: true } as object)
  await app.register(fastifyRooms as any, { prefix: '/rooms', topics: { '*': { slow: { bytes: 100_000_000 } } }, ...options })
  const session = connectHttp2(`http://${await listen(app)}`)
  t.teardown(() => { session.destroy() })
  const stream = session.request({ ':path': '/rooms/news', accept: 'text/event-stream' })
  stream.on('error', () => {})
  await once(stream, 'response')
  await until(async () => await app.rooms.count('news') === 1)
  for (let count = 0; count < 20; count++) await app.rooms.broadcast('news', 'x'.repeat(60_000))
  return { app, session }
}

t.test('a request for an event stream joins the topic', async t => {
  const joined: string[] = []
  const left: unknown[] = []
  const { rooms, url } = await serve(t, { onJoin: session => { joined.push(session.connection.protocol) }, onLeave: (session, reason) => { left.push(reason) } })
  const socket = await join(t, `${url}/rooms/news`)
  const client = await joinStream(t, `${url}/rooms/news`)
  t.equal(client.status, 200)
  t.match(client.headers, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-store, no-transform', vary: 'Accept', 'x-accel-buffering': 'no', 'transfer-encoding': 'chunked' })
  t.match(client.hello, { type: 'hello', v: 1, topic: 'news', heartbeat: 25_000 })
  t.same(client.events[0], { comment: '' }, 'a comment comes first, so that proxies pass the head')
  t.equal(client.events[1]!.id, client.hello.id)
  t.equal(await rooms.count('news'), 2)
  t.same(joined, ['websocket', 'event-stream'])
  await until(() => socket.received.some(text => text.includes(client.hello.session)), 2_000)
  const { id } = await rooms.broadcast('news', { text: 'ü\nü' })
  t.same(await client.next('message'), { type: 'message', id, data: { text: 'ü\nü' } })
  t.equal(client.events.find(({ data }) => data?.includes('"message"'))!.id, id)
  t.match(client.frames.find(({ type }) => type === 'presence'), { count: 2 })
  await rooms.send(client.hello.session, 'for you')
  t.equal((await client.next('direct' as never) as any).data, 'for you')
  t.equal(client.events.at(-1)!.id, undefined, 'a private message has no position')
  await t.rejects(rooms.ask(client.hello.session, 'well?'), { code: 'FST_ROOMS_NOT_ASKABLE' })
  client.cut()
  await until(() => left.length === 1)
  t.same(left, [{ code: 1005, reason: '' }])
  await until(async () => await rooms.count('news') === 1)
  t.equal(rooms.stats().connections, 1)
})

t.test('the head comes first if a member joins in a turn in which the room has frames for others', async t => {
  const gates: (() => void)[] = []
  const { rooms, url } = await serve(t, { onJoin: () => new Promise<void>(resolve => { gates.push(resolve) }) })
  const enter = async (): Promise<Awaited<ReturnType<typeof openStream>>> => {
    const count = gates.length
    const opening = openStream(t, `${url}/rooms/plain`)
    await until(() => gates.length === count + 1)
    rooms.broadcast('plain', 'before')
    gates.at(-1)!()
    return opening
  }
  await enter()
  const client = await enter()
  t.equal(client.status, 200)
  await client.next('hello')
  await rooms.broadcast('plain', 'after')
  await client.next('message')
  t.same(client.payloads, ['after'])
  t.same(client.events[0], { comment: '' })
})

t.test('the kind of answer: event stream, snapshot, upgrade or refusal', async t => {
  const { url } = await serve(t)
  const kinds = {
    'text/event-stream': 'text/event-stream; charset=utf-8',
    'Text/Event-Stream;q=0.5, application/json': 'text/event-stream; charset=utf-8',
    'application/json;q=0.1,text/event-stream': 'text/event-stream; charset=utf-8',
    'text/event-stream;q=0': 'application/json; charset=utf-8',
    'text/event-stream; q=0.000, application/json': 'application/json; charset=utf-8',
    'application/json': 'application/json; charset=utf-8',
    '*/*': 'application/json; charset=utf-8',
    'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8': 'application/json; charset=utf-8'
  }
  for (const [accept, type] of Object.entries(kinds)) {
    const client = await openStream(t, `${url}/rooms/news`, { accept })
    t.same([client.status, client.headers['content-type'], client.headers.vary], accept.startsWith('text/event-stream;') && type.startsWith('app') && !accept.includes('json') ? [406, type, 'Accept'] : [200, type, 'Accept'], accept)
    client.cut()
  }
  const head = await fetch(`http://${url}/rooms/news`, { method: 'HEAD', headers: { accept: 'text/event-stream' } })
  t.equal(head.status, 404)
})

t.test('resume: Last-Event-ID wins over since, and what is not valid is a position that is lost', async t => {
  const { rooms, url } = await serve(t)
  const ids: string[] = []
  for (const text of ['a', 'b', 'c']) ids.push((await rooms.broadcast('news', text)).id)
  const cases: [string, Record<string, string>, object, string[]][] = [
    ['', {}, { id: ids[2] }, []],
    [`?since=${ids[0]}`, {}, { id: ids[0], recovered: true, replayed: 2 }, ['b', 'c']],
    ['?since=0', {}, { replayed: 3 }, ['a', 'b', 'c']],
    ['?since=0', { 'last-event-id': ids[1]! }, { id: ids[1], recovered: true, replayed: 1 }, ['c']],
    [`?since=${ids[1]}`, { 'last-event-id': '' }, { id: ids[1], recovered: true, replayed: 1 }, ['c']],
    ['', { 'last-event-id': 'what is this?' }, { id: ids[2], recovered: false, replayed: 0 }, []],
    ['', { 'last-event-id': 'latest' }, { replayed: 1 }, ['c']]
  ]
  for (const [query, headers, hello, payloads] of cases) {
    const client = await joinStream(t, `${url}/rooms/news${query}`, headers)
    t.match(client.hello, hello, `${query} ${JSON.stringify(headers)}`)
    t.equal(client.events.find(({ data }) => data?.includes('"hello"'))!.id, client.hello.id)
    await until(() => client.payloads.length >= payloads.length)
    t.same(client.payloads, payloads)
    client.cut()
  }
  t.equal((await openStream(t, `${url}/rooms/news?since=nonsense`)).status, 400)
  const plain = await joinStream(t, `${url}/rooms/plain`, { 'last-event-id': ids[0]! })
  t.match(plain.hello, { recovered: false, replayed: 0 })
})

t.test('refusals before the join are those of a WebSocket', async t => {
  const { url, rooms } = await serve(t, {
    identify: request => {
      if (request.headers.authorization === undefined) throw Object.assign(new Error('who are you?'), { statusCode: 401 })
      return { user: request.headers.authorization }
    },
    authorize: ({ action, identity }: any) => identity?.user !== 'eve' && !(action === 'history' && identity?.user === 'new')
  } as AnyOptions)
  const status = async (headers: Record<string, string>, query = ''): Promise<number> => {
    const client = await openStream(t, `${url}/rooms/news${query}`, headers)
    client.cut()
    return client.status
  }
  t.equal(await status({}), 401)
  t.equal(await status({ authorization: 'eve' }), 403)
  t.equal(await status({ authorization: 'ann' }), 200)
  t.equal(await status({ authorization: 'new' }), 200)
  t.equal(await status({ authorization: 'new' }, '?since=0'), 403, 'the right to read history is asked for')
  t.equal(await status({ authorization: 'new', 'last-event-id': 'abcdefghijkl-1' }), 403)
  t.equal(await status({ authorization: 'ann', origin: 'http://evil.example' }), 403)
  t.match(rooms.stats().refusals, { unauthorized: 1, origin: 1 })
})

t.test('a refusal after which the peer should not come back has status 204', async t => {
  const joins: Record<string, () => unknown> = { at: () => false, soon: () => sleep(20, false), late: () => sleep(400, false) }
  const { url, rooms } = await serve(t, { identify: request => ({ user: (request.query as any).user }), onJoin: session => joins[session.user!]!() as never })
  for (const user of ['at', 'soon']) {
    const client = await openStream(t, `${url}/rooms/news?user=${user}`)
    t.same([client.status, client.headers['content-type'], client.headers['cache-control']], [204, undefined, 'no-store, no-transform'], user)
    await client.ended
  }
  const late = await openStream(t, `${url}/rooms/news?user=late`)
  t.equal(late.status, 200, 'a join that takes long holds the head back for a while only')
  t.match(await late.next('bye'), { code: 4003 })
  await late.ended
  t.ok(late.events.every(({ retry }) => retry === undefined))
  t.equal(rooms.stats().refusals.forbidden, 3)
  await until(() => rooms.stats().connections === 0)
})

t.test('an end after which the peer should come back says when', async t => {
  const { url, rooms } = await serve(t, { topics: { news: { limits: { members: 1 } } }, drain: { retry: { min: 200, max: 4_000 } } })
  const first = await joinStream(t, `${url}/rooms/news`)
  const full = await openStream(t, `${url}/rooms/news`)
  t.equal(full.status, 200)
  const bye = await full.next('bye')
  t.match(bye, { code: 4102 })
  const given = Number(full.events.find(({ retry }) => retry !== undefined)!.retry)
  t.ok(given >= bye.retry!.min && given <= bye.retry!.max)
  await full.ended
  const draining = rooms.drain()
  t.match(await first.next('bye'), { code: 1001 })
  await first.ended
  t.ok(first.events.some(({ retry }) => Number(retry) >= 200))
  await draining
  const late = await openStream(t, `${url}/rooms/news`)
  t.match(await late.next('bye'), { code: 1001 }, 'an EventSource would never come back after 503')
  t.ok(late.events.some(({ retry }) => Number(retry) >= 200))
  await late.ended
})

t.test('kick, topic close, credentials that end', async t => {
  const { url, rooms } = await serve(t, { identify: request => ({ user: 'ann', ...((request.query as any).short === '1' ? { expires: new Date(Date.now() + 1_300) } : {}) }), expiry: { notice: 1_000 } })
  const client = await joinStream(t, `${url}/rooms/news`)
  const short = await joinStream(t, `${url}/rooms/plain?short=1`)
  rooms.kick({ user: 'ann', topic: 'news' })
  t.match(await client.next('bye'), { code: 4005 })
  await client.ended
  t.ok(client.events.every(({ retry }) => retry === undefined))
  await short.next('expiring')
  t.match(await short.next('bye'), { code: 4300 })
  await short.ended
})

t.test('the heartbeat: a ping if nothing was sent, and an end if nothing is taken', async t => {
  const { url, rooms } = await serve(t, { heartbeat: { interval: 100, timeout: 200 }, topics: { news: { slow: { bytes: 50_000_000 } } as never } })
  const client = await joinStream(t, `${url}/rooms/news`)
  await until(() => client.events.filter(({ event, data }) => event === 'ping' && data === '{}').length > 2)
  const stuck = await joinStream(t, `${url}/rooms/news`)
  stuck.body.pause()
  const text = 'x'.repeat(60_000)
  for (let count = 0; count < 200; count++) await rooms.broadcast('news', text)
  await until(() => rooms.stats().silent === 1)
  t.equal(await rooms.count('news'), 1)
  client.cut()
})

t.test('slow members: the policies are those of a WebSocket', async t => {
  for (const policy of ['close', 'drop'] as const) {
    const { url, rooms } = await serve(t, { topics: { news: { history: true, slow: { policy, bytes: 100_000 } } as never } })
    const reader = await joinStream(t, `${url}/rooms/news`)
    const stuck = await joinStream(t, `${url}/rooms/news`)
    stuck.body.pause()
    const text = 'x'.repeat(60_000)
    let sent = 0
    await until(async () => {
      await rooms.broadcast('news', text)
      sent++
      return rooms.stats().slow + rooms.stats().lagging > 0
    })
    if (policy === 'close') await until(async () => await rooms.count('news') === 1)
    else {
      stuck.body.resume()
      await stuck.next('gap')
      t.ok(stuck.payloads.length < sent)
      t.equal(await rooms.count('news'), 2)
    }
    await until(() => reader.payloads.length === sent)
    reader.cut()
  }
})

t.test('headers that hooks of the host have set are on the answer; onSend hooks do not run', async t => {
  const app = createApp(t)
  let sends = 0
  app.addHook('onRequest', async (request, reply) => {
    reply.header('access-control-allow-origin', 'https://app.example').header('vary', 'Origin').header('set-cookie', ['a=1', 'b=2']).header('content-length', '12')
    reply.raw.setHeader('x-raw', 'yes')
  })
  app.addHook('onSend', async () => { sends++ })
  await app.register(fastifyRooms as any, { prefix: '/rooms', origin: 'any' })
  const client = await joinStream(t, `${await listen(app)}/rooms/news`)
  t.match(client.headers, { 'access-control-allow-origin': 'https://app.example', vary: 'Origin, Accept', 'set-cookie': ['a=1', 'b=2'], 'x-raw': 'yes', 'transfer-encoding': 'chunked' })
  t.equal(client.headers['content-length'], undefined)
  t.equal(sends, 0)
})

t.test('limits count event streams as connections', async t => {
  const { url, rooms } = await serve(t, { limits: { perAddress: 2 } })
  await joinStream(t, `${url}/rooms/news`)
  await join(t, `${url}/rooms/news`)
  const third = await openStream(t, `${url}/rooms/news`)
  t.match(await third.next('bye'), { code: 4104 })
  t.equal(rooms.stats().refusals.perAddress, 1)
})

t.test('the URL of an event stream is logged without its values', async t => {
  const logs: LogLine[] = []
  const { url } = await serve(t, {}, logs)
  await joinStream(t, `${url}/rooms/news?token=secret`)
  t.ok(logs.some(({ msg }) => msg === 'member joined'))
  t.notMatch(JSON.stringify(logs), /secret/)
})

t.test('a peer that leaves while hooks run leaves nothing behind', async t => {
  let go = (): void => {}
  let asked = 0
  const { url, rooms } = await serve(t, { identify: async () => { asked++; await new Promise<void>(resolve => { go = resolve }); return null }, onJoin: async () => { asked++; await new Promise<void>(resolve => { go = resolve }) } })
  const gone = connectTcp(Number(url.split(':')[1]), '127.0.0.1')
  gone.write('GET /rooms/news HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n\r\n')
  await until(() => asked === 1)
  gone.destroy()
  await sleep(50)
  go()
  await sleep(50)
  t.equal(asked, 1)
  t.equal(rooms.stats().connections, 0)
  const later = connectTcp(Number(url.split(':')[1]), '127.0.0.1')
  later.write('GET /rooms/news HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n\r\n')
  await until(() => asked === 2)
  go()
  await until(() => asked === 3)
  later.destroy()
  await until(() => rooms.stats().connections === 0)
  go()
  await sleep(20)
  t.equal(await rooms.count('news'), 0)
})

t.test('a connection ends with its stream, and answers no further request before', async t => {
  const sessions: any[] = []
  const { url, rooms } = await serve(t, { onJoin: session => { sessions.push(session) } })
  const socket = connectTcp(Number(url.split(':')[1]), '127.0.0.1')
  t.teardown(() => { socket.destroy() })
  let text = ''
  socket.setEncoding('utf8').on('data', chunk => { text += chunk })
  const request = 'GET /rooms/news HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n\r\n'
  socket.write(request + request + 'GET /rooms/news HTTP/1.1\r\nhost: a\r\n\r\n')
  await until(() => rooms.stats().members === 2)
  await rooms.broadcast('news', 'both')
  await until(() => text.includes('both'))
  sessions[0].close()
  await once(socket, 'end')
  t.same(text.match(/HTTP\/1.1 \d+/g), ['HTTP/1.1 200'])
  t.match(text, /\r\nconnection: close\r\n/i)
  t.ok(text.endsWith('\n\n\r\n0\r\n\r\n'), 'the stream ends with its last chunk')
  await until(() => rooms.stats().connections === 0)
})

t.test('a stream behind another answer of its connection begins when that has ended', async t => {
  let answer = (): void => {}
  const { app, url, rooms } = await serveSlow(t, reply => { answer = reply })
  const socket = connectTcp(Number(url.split(':')[1]), '127.0.0.1')
  t.teardown(() => { socket.destroy() })
  let text = ''
  socket.setEncoding('utf8').on('data', chunk => { text += chunk })
  socket.write('GET /slow HTTP/1.1\r\nhost: a\r\n\r\nGET /rooms/news HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n\r\n')
  await until(() => rooms.stats().members === 1)
  await rooms.broadcast('news', 'late')
  t.equal(text, '')
  answer()
  await until(() => text.includes('late'))
  const [session] = await rooms.members('news')
  await rooms.kick({ session: session.session })
  await until(() => text.endsWith('0\r\n\r\n'))
  socket.write('GET /rooms/news HTTP/1.1\r\nhost: a\r\n\r\n')
  await until(() => text.includes('application/json'))
  t.equal(rooms.stats().connections, 0)
  await app.close()
})

t.test('the body of a request for a stream is not kept', async t => {
  const { url, rooms } = await serve(t)
  for (const head of ['content-length: 1000000000', 'transfer-encoding: chunked']) {
    const socket = connectTcp(Number(url.split(':')[1]), '127.0.0.1')
    t.teardown(() => { socket.destroy() })
    socket.on('error', () => {})
    let text = ''
    socket.on('data', chunk => { text += String(chunk) })
    socket.write(`GET /rooms/news HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n${head}\r\n\r\n`)
    await until(() => text.includes('hello'))
    const part = Buffer.alloc(1_000_000, 'x')
    const body = head.startsWith('content') ? part : Buffer.concat([Buffer.from('f4240\r\n'), part, Buffer.from('\r\n')])
    for (let count = 0; count < 20; count++) if (!socket.write(body)) await once(socket, 'drain')
    socket.destroy()
    await until(() => rooms.stats().connections === 0)
  }
})

t.test('a header that cannot be sent is refused as on each other route', async t => {
  const app = createApp(t)
  app.addHook('onRequest', async (_request, reply) => { reply.header('x-name', 'a\nb') })
  await app.register(fastifyRooms as any, { prefix: '/rooms' })
  const client = await openStream(t, `${await listen(app)}/rooms/news`)
  t.equal(client.status, 500)
  t.equal(app.rooms.stats().connections, 0)
})

t.test('headers of one connection that a hook has put on the raw response are not sent', async t => {
  for (const [version, kept] of [['1.1', { 'transfer-encoding': 'chunked' }], ['1.0', {}]] as const) {
    const app = createApp(t)
    app.addHook('onRequest', async (_request, { raw }) => {
      for (const [name, value] of Object.entries({ 'Content-Length': '5', Connection: 'keep-alive', 'Keep-Alive': 'timeout=5', 'Content-Type': 'text/plain', 'Transfer-Encoding': 'gzip', Trailer: 'x-end', 'X-Raw': 'yes' })) raw.setHeader(name, value)
    })
    await app.register(fastifyRooms as any, { prefix: '/rooms', onJoin: (session: any) => session.topic !== 'secret' })
    const url = await listen(app)
    for (const [topic, status] of [['news', 200], ['secret', 204]] as const) {
      const socket = connectTcp(Number(url.split(':')[1]), '127.0.0.1')
      t.teardown(() => { socket.destroy() })
      let text = ''
      socket.setEncoding('utf8').on('data', chunk => { text += chunk })
      socket.write(`GET /rooms/${topic} HTTP/${version}\r\nhost: a\r\naccept: text/event-stream\r\n\r\n`)
      await until(() => text.includes('\r\n\r\n'))
      const [line, ...lines] = text.slice(0, text.indexOf('\r\n\r\n')).split('\r\n') as [string, ...string[]]
      const headers = Object.fromEntries(lines.map(line => line.toLowerCase().split(': '))) as Record<string, string>
      t.match(line, `HTTP/1.1 ${status}`)
      delete headers['date']
      t.strictSame(headers, {
        vary: 'accept',
        'x-raw': 'yes',
        connection: 'close',
        'cache-control': 'no-store, no-transform',
        'x-accel-buffering': 'no',
        ...(status === 200 ? { 'content-type': 'text/event-stream; charset=utf-8', ...kept } : {})
      }, `${version} ${topic}`)
    }
  }
})

t.test('a header that HTTP/2 cannot send is refused, or ends the stream alone', async t => {
  for (const [value, status] of [[null, 500], [['a', 'b'], undefined]] as const) {
    for (const wait of [0, 20, 300]) {
      const app = createApp(t, { http2: true } as object)
      app.addHook('onRequest', async (_request, reply) => { reply.header('x-content-type-options', value) })
      await app.register(fastifyRooms as any, {
        prefix: '/rooms',
        onJoin: async (session: any) => {
          await sleep(wait)
          if (session.topic === 'slow') session.close(4201)
          return session.topic !== 'secret'
        }
      })
      const session = connectHttp2(`http://${await listen(app)}`)
      t.teardown(() => { session.destroy() })
      for (const topic of ['news', 'secret', 'slow']) {
        const stream = session.request({ ':path': `/rooms/${topic}`, accept: 'text/event-stream' })
        let given: unknown
        stream.on('error', () => {}).on('response', headers => { given = headers[':status'] }).resume()
        await new Promise(resolve => { stream.on('close', resolve) })
        t.equal(given, status)
        await until(() => app.rooms.stats().connections === 0)
      }
      t.notOk(session.destroyed)
    }
  }
})

t.test('a stream of HTTP/2 that is cancelled while bytes wait leaves nothing behind', async t => {
  const app = createApp(t, { http2: true } as object)
  await app.register(fastifyRooms as any, { prefix: '/rooms', heartbeat: false, topics: { '*': { slow: { bytes: 100_000_000 } } } })
  const url = await listen(app)
  for (const code of [constants.NGHTTP2_NO_ERROR, constants.NGHTTP2_CANCEL]) {
    const session = connectHttp2(`http://${url}`)
    t.teardown(() => { session.destroy() })
    const stream = session.request({ ':path': '/rooms/news', accept: 'text/event-stream' })
    stream.on('error', () => {})
    await once(stream, 'response')
    await until(async () => await app.rooms.count('news') === 1)
    for (let count = 0; count < 20; count++) await app.rooms.broadcast('news', 'x'.repeat(60_000))
    t.ok(app.rooms.stats().queuedBytes > 0)
    stream.close(code)
    await until(() => app.rooms.stats().connections === 0, 2_000)
    t.match(app.rooms.stats(), { members: 0, topics: 0, queuedBytes: 0 })
  }
})

t.test('many streams on one connection, one behind the other, add one listener to it', async t => {
  const warnings: Error[] = []
  const warned = (warning: Error): void => { warnings.push(warning) }
  process.on('warning', warned)
  t.teardown(() => { process.removeListener('warning', warned) })
  const { url, rooms } = await serve(t)
  const socket = connectTcp(Number(url.split(':')[1]), '127.0.0.1')
  t.teardown(() => { socket.destroy() })
  socket.write('GET /rooms/news HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n\r\n'.repeat(20))
  await until(() => rooms.stats().members === 20)
  socket.destroy()
  await until(() => rooms.stats().connections === 0)
  t.same(warnings, [])
})

t.test('an event stream whose peer of HTTP/2 reads nothing does not delay app.close', async t => {
  const { app } = await serveStuck(t, { drain: { timeout: 300 } })
  await Promise.race([app.close(), sleep(10_000).then(() => { throw new Error('the app did not close') })])
})

t.test('broadcasts of a request for a stream are dropped, and refused from onJoin on', async t => {
  const codes: string[] = []
  const app = createApp(t, { http2: true, https: { ...tls, allowHTTP1: true } } as object)
  await app.register(fastifyRooms as any, {
    prefix: '/rooms',
    identify: (request: any) => {
      request.rooms.broadcast('plain', 'early')
      return null
    },
    onJoin: (_session: unknown, request: any) => {
      try {
        request.rooms.broadcast('plain', 'late')
      } catch (error: any) {
        codes.push(error.code)
      }
    }
  })
  const url = await listen(app)
  const session = connectHttp2(`https://${url}`, tlsClient as object)
  t.teardown(() => { session.destroy() })
  session.request({ ':path': '/rooms/news', accept: 'text/event-stream' }).on('error', () => {}).resume()
  const request = requestTls({ host: '127.0.0.1', port: Number(url.split(':')[1]), path: '/rooms/news', agent: false, headers: { accept: 'text/event-stream' }, ...tlsClient } as object, response => { response.resume() }).end()
  t.teardown(() => { request.destroy() })
  request.on('error', () => {})
  await until(async () => await app.rooms.count('news') === 2)
  t.same(codes, ['FST_ROOMS_NO_RESPONSE', 'FST_ROOMS_NO_RESPONSE'])
  app.rooms.kick({ topic: 'news' })
  await until(() => app.rooms.stats().connections === 0)
  t.equal(app.rooms.stats().broadcasts, 0)
})

t.test('what the host sends fails if the connection closes before it was taken', async t => {
  const request = (version: string): string => `GET /rooms/news HTTP/${version}\r\nhost: a\r\naccept: text/event-stream\r\n\r\n`
  const kinds: Record<string, string | undefined> = { direct: request('1.1'), behind: `GET /slow HTTP/1.1\r\nhost: a\r\n\r\n${request('1.1')}`, old: request('1.0'), ended: request('1.0'), http2: undefined }
  for (const [kind, text] of Object.entries(kinds)) {
    const sends: Promise<void>[] = []
    const app = createApp(t, (text === undefined ? { http2: true } : {}) as object)
    app.get('/slow', async () => new Promise(() => {}))
    await app.register(fastifyRooms as any, {
      prefix: '/rooms',
      topics: { '*': { slow: { bytes: 100_000_000 } } },
      onJoined: (session: any) => {
        for (let count = 0; count < 20; count++) sends.push(session.send('x'.repeat(1_000_000)))
        if (kind === 'ended') session.close()
      }
    })
    const url = await listen(app)
    const peer = text === undefined ? connectHttp2(`http://${url}`) : connectTcp(Number(url.split(':')[1]), '127.0.0.1')
    t.teardown(() => { peer.destroy() })
    peer.on('error', () => {})
    if (text === undefined) (peer as ReturnType<typeof connectHttp2>).request({ ':path': '/rooms/news', accept: 'text/event-stream' }).on('error', () => {})
    else (peer as ReturnType<typeof connectTcp>).pause().write(text)
    await until(() => sends.length === 20)
    const last = sends.at(-1)!
    last.catch(() => {})
    await sleep(50)
    peer.destroy()
    await t.rejects(last, { code: 'FST_ROOMS_SESSION_CLOSED' }, kind)
    await until(() => app.rooms.stats().connections === 0)
  }
})

t.test('HTTP/1.0 has no chunks', async t => {
  const { url, rooms } = await serve(t)
  const socket = connectTcp(Number(url.split(':')[1]), '127.0.0.1')
  t.teardown(() => { socket.destroy() })
  let text = ''
  socket.setEncoding('utf8').on('data', chunk => { text += chunk })
  socket.write('GET /rooms/news HTTP/1.0\r\nhost: a\r\naccept: text/event-stream\r\n\r\n')
  await until(async () => await rooms.count('news') === 1)
  await rooms.broadcast('news', 'plain')
  rooms.kick({ topic: 'news' })
  await once(socket, 'close')
  const body = text.slice(text.indexOf('\r\n\r\n') + 4)
  t.notMatch(text, /transfer-encoding/i)
  t.match(eventsIn(body).map(({ data }) => data === undefined ? '' : JSON.parse(data).type), ['', 'hello', 'presence', 'message', 'bye'])
})

t.test('an injected request gets its stream', async t => {
  const { app, rooms } = await serve(t)
  const response = await app.inject({ url: '/rooms/news', headers: { accept: 'text/event-stream' }, payloadAsStream: true })
  t.equal(response.statusCode, 200)
  const client = new EventClient(response.stream())
  await client.next('hello')
  await rooms.broadcast('news', 'inside')
  t.equal((await client.next('message')).data, 'inside')
  rooms.kick({ topic: 'news' })
  await client.next('bye')
  await client.ended
})

t.test('event streams over TLS', async t => {
  const app = createApp(t, { https: tls } as object)
  await app.register(fastifyRooms as any, { prefix: '/rooms', history: true })
  const url = await listen(app)
  const request = requestTls({ host: '127.0.0.1', port: Number(url.split(':')[1]), path: '/rooms/news', agent: false, headers: { accept: 'text/event-stream' }, ...tlsClient } as object).end()
  t.teardown(() => { request.destroy() })
  request.on('error', () => {})
  const [response] = await once(request, 'response') as [IncomingMessage]
  const client = new EventClient(response)
  await client.next('hello')
  await app.rooms.broadcast('news', 'x'.repeat(30_000))
  t.equal(((await client.next('message')).data as string).length, 30_000)
  await app.rooms.kick({ topic: 'news' })
  await client.next('bye')
  await client.ended
})

t.test('event streams over HTTP/2: many on one connection, each with its own end', async t => {
  const app = createApp(t, { http2: true } as object)
  await app.register(fastifyRooms as any, { prefix: '/rooms', history: true, heartbeat: { interval: 200, timeout: 20_000 }, topics: { '*': { slow: { bytes: 1_000_000, policy: 'drop' } } }, onJoin: (session: any) => session.topic !== 'secret' })
  const session = connectHttp2(`http://${await listen(app)}`)
  t.teardown(() => { session.destroy() })
  const open = async (topic: string) => {
    const stream = session.request({ ':path': `/rooms/${topic}`, accept: 'text/event-stream' })
    stream.on('error', () => {})
    const [headers] = await once(stream, 'response')
    return { stream, headers, client: new EventClient(stream) }
  }
  const peers = await Promise.all(Array.from({ length: 8 }, () => open('news')))
  for (const { headers, client } of peers) {
    t.equal(headers[':status'], 200)
    await client.next('hello')
  }
  const [first, second, slow] = peers as [typeof peers[0], typeof peers[0], typeof peers[0]]
  t.equal((await open('secret')).headers[':status'], 204)
  slow.stream.pause()
  const text = 'x'.repeat(60_000)
  let sent = 0
  await until(async () => {
    await app.rooms.broadcast('news', text)
    sent++
    return app.rooms.stats().lagging > 0
  })
  await until(() => first.client.payloads.length === sent)
  slow.stream.resume()
  await slow.client.next('gap')
  await app.rooms.kick({ session: (first.client.frames[0] as any).session })
  await first.client.next('bye')
  await first.client.ended
  second.stream.close(constants.NGHTTP2_CANCEL)
  await until(async () => await app.rooms.count('news') === 6)
  await until(() => slow.client.events.some(({ event }) => event === 'ping'))
  await app.close()
  await Promise.all(peers.map(async ({ client }) => client.ended))
})

t.test('a peer of HTTP/2 that takes nothing is silent, and its stream alone ends', async t => {
  const { app, session } = await serveStuck(t, { heartbeat: { interval: 200, timeout: 400 } })
  await until(() => app.rooms.stats().silent === 1)
  await until(() => app.rooms.stats().connections === 0)
  t.notOk(session.destroyed)
})

t.test('an event stream whose peer takes none of its replay is ended; one that reads slowly gets all of it', async t => {
  for (const version of ['1.1', '1.0']) {
    const history = { size: 100_000, bytes: 50_000_000, replay: 50_000_000 }
    const { rooms, url } = await serve(t, { topics: { news: { history } as never }, limits: { unfinished: 500 } })
    for (let n = 1; n <= 15_000; n++) await rooms.broadcast('news', `${n} ${'x'.repeat(1_000)}`)
    const [host, port] = url.split(':') as [string, string]
    const peers = Array.from({ length: 2 }, () => {
      const socket = connectTcp(Number(port), host)
      t.teardown(() => { socket.destroy() })
      socket.on('error', () => {})
      socket.write(`GET /rooms/news?since=0 HTTP/${version}\r\nhost: ${url}\r\naccept: text/event-stream\r\n\r\n`)
      return socket
    })
    const [mute, slow] = peers as [typeof peers[0] & object, typeof peers[0] & object]
    mute.pause()
    let read = 0
    slow.on('data', ({ length }) => { read += length })
    slow.pause()
    const reading = setInterval(() => {
      slow.resume()
      setTimeout(() => { slow.pause() }, 1)
    }, 20)
    t.teardown(() => { clearInterval(reading) })
    await until(() => rooms.stats().slow === 1)
    await sleep(800)
    t.match(rooms.stats(), { slow: 1, members: 1 }, `HTTP/${version}`)
    clearInterval(reading)
    await sleep(5)
    slow.resume()
    await until(() => read > 15_000_000)
    await until(() => rooms.stats().replayed >= 15_000)
  }
})
