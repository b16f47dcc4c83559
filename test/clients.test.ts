/** The server as other clients see it: ws, undici, Node's own fetch, and Python's websockets, which shares no code with Node. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import type { FastifyInstance } from 'fastify'
import { Type } from '@sinclair/typebox'
import { defineTopics } from '../lib/index.ts'
import type { LeaveReason, PresenceFrame } from '../types/index.ts'
import { openPython, openUndici, openWs, pythonMissing, Refused, type Opening, type Speaker } from './clients/speakers.ts'
import { createRooms, join, listen, until, type AnyOptions, type Client } from './helpers/app.ts'

/** Milliseconds for the start of Python on a busy machine. */
const patience = 20_000

const topics = defineTopics({
  news: { message: Type.Object({ headline: Type.String() }), post: true },
  'chat:*': { message: Type.Object({ text: Type.String() }), publish: true, presence: true },
  any: { publish: true },
  kept: { publish: true, post: true, history: { size: 3 } }
})
const limits = { payload: 1_024, badFrames: 3 }

async function serve (t: Test, options: AnyOptions = {}): Promise<{ app: FastifyInstance, url: string }> {
  const app = await createRooms(t, { topics, authorize: () => true, ...options })
  return { app, url: `${await listen(app)}/rooms` }
}

function post (url: string, body: string, type = 'application/json'): Promise<Response> {
  return fetch(`http://${url}`, { method: 'POST', body, headers: { 'content-type': type } })
}

const refusal = (url: string, open: Open, t: Test, opening: Opening): Promise<Refused> => open(t, url, opening).then(
  () => { throw new Error('it was not refused') },
  (error: unknown) => {
    if (error instanceof Refused) return error
    throw error
  }
)

/** The presence frame that announces a session. The witness's own join comes before it or in the same frame. */
async function told (witness: Client | Speaker, of: 'join' | 'leave', session: string): Promise<PresenceFrame> {
  for (;;) {
    const frame = await witness.next('presence')
    if (frame[of]?.some(member => member.session === session) === true) return frame
  }
}

type Open = (t: Test, url: string, opening?: Opening) => Promise<Speaker>
const clients: { name: string, open: Open, skip: string | false, tellsStatus: boolean }[] = [
  { name: 'ws', open: openWs, skip: false, tellsStatus: true },
  { name: 'undici', open: openUndici, skip: false, tellsStatus: false },
  { name: 'Python\'s websockets', open: openPython, skip: process.env.CI === undefined ? pythonMissing : false, tellsStatus: true }
]

t.test('the Python client is installed if CI requires it', async t => {
  if (process.env.CI !== undefined) t.equal(pythonMissing, false)
  else if (pythonMissing !== false) t.comment(`not tested: ${pythonMissing}`)
})

/** The whole life of a member in rooms.v1. */
async function lifeInV1 (t: Test, open: Open, app: FastifyInstance, url: string, opening: Opening): Promise<Speaker> {
  const one = await open(t, `${url}/chat:1?presence=1`, opening)
  const hello = await one.next()
  t.match(hello, { type: 'hello', v: 1, topic: 'chat:1', session: String, maxPayload: Number })
  const { session } = hello as { session: string }
  t.match(await one.next('presence'), { count: 1, state: [{ session }] }, 'the requested snapshot follows hello')

  const sent = await app.rooms.broadcast('chat:1', { text: 'from code' })
  t.match(sent, { local: 1, published: true })
  t.same(await one.next('message'), { type: 'message', id: sent.id, data: { text: 'from code' } })

  const long = 'long '.repeat(150)
  one.send({ type: 'message', ref: 7, data: { text: long } })
  const echo = await one.next('message')
  t.match(echo, { data: { text: long }, from: session }, 'the sender gets an echo')
  t.same(await one.next('ack'), { type: 'ack', ref: 7, ok: true, id: echo.id }, 'the echo comes before its ack')

  one.send({ type: 'message', ref: 'bad', data: { txt: 'x' } })
  t.match(await one.next('ack'), { ref: 'bad', ok: false, error: { code: 'FST_ROOMS_INVALID_PAYLOAD' } })

  const other = await join(t, `${url}/chat:1`)
  t.match(await told(one, 'join', other.hello.session), { count: 2 })
  await other.close()
  t.match(await told(one, 'leave', other.hello.session), { count: 1 })

  const listener = await open(t, `${url}/news`, opening)
  await listener.next('hello')
  const answer = await post(`${url}/news`, '{"headline":"from HTTP"}')
  t.equal(answer.status, 200)
  const result = await answer.json() as { id: string }
  t.same(result, { topic: 'news', id: result.id, local: 1, published: true })
  t.same(await listener.next(), { type: 'message', id: result.id, data: { headline: 'from HTTP' } })

  await app.close()
  for (const speaker of [one, listener]) {
    t.match(await speaker.next('bye'), { code: 1001, reason: 'going_away', retry: { min: Number, max: Number } })
    t.same(await speaker.closed, { code: 1001, reason: 'going_away' })
    await t.rejects(speaker.next(), { message: 'closed with 1001' }, 'no frame follows bye')
  }
  return one
}

/** The whole life of a member in rooms.raw. */
async function lifeInRaw (t: Test, open: Open, app: FastifyInstance, url: string, opening: Opening): Promise<void> {
  const raw = { ...opening, protocols: ['rooms.raw'] }
  const one = await open(t, `${url}/chat:1`, raw)
  const two = await open(t, `${url}/chat:1`, raw)
  t.equal(one.protocol, 'rooms.raw')
  await until(async () => await app.rooms.count('chat:1') === 2, patience)
  await app.rooms.broadcast('chat:1', { text: 'from code' })
  for (const speaker of [one, two]) t.equal(await speaker.text(), '{"text":"from code"}', 'the first frame is a message, because raw mode has no hello')
  one.sendText('{"text":"from a member"}')
  for (const speaker of [one, two]) t.equal(await speaker.text(), '{"text":"from a member"}')

  const listener = await open(t, `${url}/news`, raw)
  await until(async () => await app.rooms.count('news') === 1, patience)
  t.equal((await post(`${url}/news`, '{ "headline": "from HTTP" }')).status, 200)
  t.equal(await listener.text(), '{"headline":"from HTTP"}')

  const untyped = await open(t, `${url}/any`, raw)
  untyped.sendText('no JSON, but a text: ü€😀')
  t.equal(await untyped.text(), 'no JSON, but a text: ü€😀')

  await app.close()
  for (const speaker of [one, two, listener, untyped]) {
    t.same(await speaker.closed, { code: 1001, reason: 'going_away' })
    await t.rejects(speaker.text(), { message: 'closed with 1001' }, 'raw mode has no bye')
  }
}

for (const { name, open, skip, tellsStatus } of clients) {
  t.test(`${name} joins, talks and leaves in rooms.v1`, { skip }, async t => {
    const { app, url } = await serve(t)
    const speaker = await lifeInV1(t, open, app, url, {})
    t.equal(speaker.extensions, '', 'the client\'s default offer of compression, if any, was declined')
  })

  t.test(`${name} joins, talks and leaves in rooms.raw`, { skip }, async t => {
    const { app, url } = await serve(t)
    await lifeInRaw(t, open, app, url, {})
  })

  t.test(`${name} gets compressed frames if the host enables compression`, { skip }, async t => {
    const { app, url } = await serve(t, { websocket: { options: { perMessageDeflate: { threshold: 0 } } } })
    const speaker = await lifeInV1(t, open, app, url, {})
    t.equal(speaker.extensions.split(';')[0], 'permessage-deflate')
  })

  t.test(`${name} gets compressed frames in raw mode if the host enables compression`, { skip }, async t => {
    const { app, url } = await serve(t, { websocket: { options: { perMessageDeflate: true } } })
    await lifeInRaw(t, open, app, url, {})
  })

  t.test(`${name} gets the first known subprotocol of its offer`, { skip }, async t => {
    const { url } = await serve(t)
    const offers: [string[], string][] = [
      [[], ''],
      [['rooms.v1'], 'rooms.v1'],
      [['rooms.raw'], 'rooms.raw'],
      [['rooms.raw', 'rooms.v1'], 'rooms.raw'],
      [['rooms.v1', 'rooms.raw'], 'rooms.v1'],
      [['bearer.dG9rZW4', 'rooms.raw'], 'rooms.raw'],
      [['mqtt', 'rooms.v1'], 'rooms.v1']
    ]
    for (const [protocols, expected] of offers) {
      const speaker = await open(t, `${url}/any`, { protocols })
      t.equal(speaker.protocol, expected, protocols.join(', '))
      if (expected !== 'rooms.raw') t.match(await speaker.next(), { type: 'hello' })
      speaker.close(1000, '')
      t.match(await speaker.closed, { code: 1000 })
    }
    const { status } = await refusal(`${url}/any`, open, t, { protocols: ['mqtt'] })
    if (tellsStatus) t.equal(status, 400, 'an offer of unknown subprotocols only is refused')
  })

  t.test(`${name} gets the reason of a refused frame in rooms.v1`, { skip }, async t => {
    const { app, url } = await serve(t, { limits })
    const witness = await join(t, `${url}/chat:1`)
    const one = await open(t, `${url}/chat:1`)
    t.match(await one.next('hello'), { maxPayload: 1_024 })

    one.sendBinary(Buffer.from('{"type":"ping","ref":1}'))
    t.match(await one.next('error'), { error: { code: 'FST_ROOMS_BAD_FRAME', message: /binary/ } })
    one.sendText('no JSON')
    t.match(await one.next('error'), { error: { code: 'FST_ROOMS_BAD_FRAME', message: /JSON/ } })
    one.send({ type: 'ping', ref: 2 })
    t.same(await one.next('ack'), { type: 'ack', ref: 2, ok: true }, 'the connection stays open, and the count of bad frames restarts')
    one.send({ type: 'message', ref: 3, data: { text: 'x'.repeat(1_200) } })
    t.match(await one.next('error'), { error: { code: 'FST_ROOMS_FRAME_TOO_LARGE' } })
    one.send({ type: 'shout', ref: 4 })
    t.match(await one.next('ack'), { ref: 4, ok: false, error: { code: 'FST_ROOMS_BAD_FRAME' } })

    one.sendText('[]')
    t.match(await one.next('error'), { error: { code: 'FST_ROOMS_BAD_FRAME' } })
    one.sendText('{}')
    t.match(await one.next('error'), { error: { code: 'FST_ROOMS_BAD_FRAME' } }, 'the third bad frame in a row is answered before the close')
    t.match(await one.next('bye'), { code: 4000, reason: 'bad_frame' })
    t.same(await one.closed, { code: 4000, reason: 'bad_frame' })

    const huge = await open(t, `${url}/chat:1`)
    await huge.next('hello')
    huge.sendText('x'.repeat(5_000))
    t.match(await huge.closed, { code: 1009 }, 'a frame far over the limit is not read')

    await until(async () => await app.rooms.count('chat:1') === 1, patience)
    await app.rooms.broadcast('chat:1', { text: 'last' })
    t.match(await witness.next('message'), { data: { text: 'last' } }, 'other members are not affected')
  })

  t.test(`${name} is closed for a bad frame in rooms.raw`, { skip }, async t => {
    const { url } = await serve(t, { limits })
    const faults: [string, string | Buffer, { code: number, reason?: string }][] = [
      ['binary', Buffer.from('{"text":"x"}'), { code: 4000, reason: 'bad_frame' }],
      ['no JSON', 'no JSON', { code: 4000, reason: 'bad_frame' }],
      ['not by the schema', '{"txt":"x"}', { code: 4022, reason: 'invalid_payload' }],
      ['too large', JSON.stringify({ text: 'x'.repeat(1_200) }), { code: 1009, reason: 'too_large' }],
      ['far too large', JSON.stringify({ text: 'x'.repeat(5_000) }), { code: 1009 }]
    ]
    for (const [fault, frame, end] of faults) {
      const one = await open(t, `${url}/chat:1`, { protocols: ['rooms.raw'] })
      if (typeof frame === 'string') one.sendText(frame)
      else one.sendBinary(frame)
      t.match(await one.closed, end, fault)
    }
    const listener = await open(t, `${url}/news`, { protocols: ['rooms.raw'] })
    listener.sendText('{"headline":"x"}')
    t.same(await listener.closed, { code: 4003, reason: 'forbidden' }, 'members may not publish in this topic')
  })

  t.test(`${name} comes back with since, and gets what it has missed, or is told that it does not`, { skip }, async t => {
    const { app, url } = await serve(t)
    const first = await open(t, `${url}/kept`)
    await first.next('hello')
    await app.rooms.broadcast('kept', 1)
    const { id } = await first.next('message')
    first.close(1000, '')
    await first.closed
    for (const data of [2, 'ü€😀', 4]) await app.rooms.broadcast('kept', data)

    const again = await open(t, `${url}/kept?since=${id}`)
    t.match(await again.next('hello'), { id, recovered: true, replayed: 3 })
    await app.rooms.broadcast('kept', 5)
    for (const data of [2, 'ü€😀', 4, 5]) t.equal((await again.next('message')).data, data)

    const late = await open(t, `${url}/kept?since=${id}`)
    t.match(await late.next('hello'), { recovered: false, replayed: 0 }, 'the topic keeps three messages')
    const raw = await open(t, `${url}/kept?since=${id}`, { protocols: ['rooms.raw'] })
    t.same(await raw.closed, { code: 4202, reason: 'position_lost' })
    const all = await open(t, `${url}/kept?since=0`, { protocols: ['rooms.raw'] })
    for (const text of ['ü€😀', '4', '5']) t.equal(await all.text(), text)
    const { status } = await refusal(`${url}/kept?since=yesterday`, open, t, {})
    if (tellsStatus) t.equal(status, 400)
  })

  t.test(`${name} sends a message again whose answer it has not got`, { skip }, async t => {
    const { url } = await serve(t)
    const message = { type: 'message', data: 'once', mid: 'a'.repeat(16), ref: 1 }
    const first = await open(t, `${url}/kept`)
    await first.next('hello')
    first.send(message)
    const { id } = await first.next('message')
    first.close(1000, '')
    await first.closed
    const again = await open(t, `${url}/kept?since=${id}`)
    await again.next('hello')
    again.send(message)
    t.same(await again.next(), { type: 'ack', ref: 1, ok: true, id, duplicate: true }, 'no second message comes before the answer')
  })

  t.test(`${name} gets a pong for its ping`, { skip }, async t => {
    const { url } = await serve(t)
    const one = await open(t, `${url}/any`)
    await one.next('hello')
    await one.ping()
    await one.ping()
    one.send({ type: 'ping', ref: 1 })
    t.match(await one.next(), { type: 'ack', ref: 1 }, 'a ping of the WebSocket is not answered with a frame')
  })

  t.test(`${name} closes with a code of its own`, { skip }, async t => {
    const left: LeaveReason[] = []
    const { app, url } = await serve(t, { onLeave: (_session: unknown, reason: LeaveReason) => { left.push(reason) } })
    const one = await open(t, `${url}/any`)
    await one.next('hello')
    one.close(4321, 'enough')
    t.same(await one.closed, { code: 4321, reason: 'enough' })
    await until(() => left.length === 1, patience)
    t.same(left, [{ code: 4321, reason: 'enough' }])
    t.equal(await app.rooms.count('any'), 0)
  })
}

t.test('Python\'s websockets answers the server\'s pings', { skip: clients[2]!.skip }, async t => {
  const { app, url } = await serve(t, { heartbeat: { interval: 20, timeout: 10_000 } })
  const one = await openPython(t, `${url}/any`)
  t.match(await one.next('hello'), { heartbeat: 20 })
  const count = (what: string): number => one.control.filter(entry => entry === what).length
  await until(() => count('out PONG') >= 3, patience)
  t.ok(count('in PING') >= 3)
  t.equal(count('out PING'), 0, 'the client sent no ping of its own')
  t.equal(await app.rooms.count('any'), 1)
  t.match(app.rooms.stats(), { silent: 0, members: 1 })
})

t.test('clients with and without compression are served side by side', async t => {
  const { app, url } = await serve(t, { websocket: { options: { perMessageDeflate: true } } })
  const squeezed = await openWs(t, `${url}/any`)
  const plain = await openWs(t, `${url}/any`, { compression: false })
  t.equal(squeezed.extensions, 'permessage-deflate')
  t.equal(plain.extensions, '')
  const python = clients[2]!.skip === false ? [await openPython(t, `${url}/any`, { compression: false })] : []
  for (const { extensions } of python) t.equal(extensions, '')

  const payload = 'again and '.repeat(5_000)
  for (const speaker of [squeezed, plain, ...python]) await speaker.next('hello')
  await app.rooms.broadcast('any', payload)
  for (const speaker of [squeezed, plain, ...python]) t.equal((await speaker.next('message')).data, payload)
  const bytes = (speaker: typeof plain): number => (speaker.socket as unknown as { _socket: { bytesRead: number } })._socket.bytesRead
  t.ok(bytes(plain) > 50_000, `${bytes(plain)} bytes without compression`)
  t.ok(bytes(squeezed) < 5_000, `${bytes(squeezed)} bytes with compression`)
})

t.test('a fragmented message is delivered as one message', async t => {
  const { app, url } = await serve(t)
  const other = await join(t, `${url}/chat:1`)
  const parts = ['{"type":"message","ref":1,', '"data":{"te', 'xt":"ü', '€😀', ' in parts"}}']

  const one = await openWs(t, `${url}/chat:1`)
  await one.next('hello')
  parts.forEach((part, index) => { one.socket.send(part, { fin: index === parts.length - 1 }) })
  t.match(await one.next('ack'), { ref: 1, ok: true })
  t.match(await other.next('message'), { data: { text: 'ü€😀 in parts' } })

  one.socket.send('{"type":"ping",', { fin: false })
  await one.ping()
  await app.rooms.broadcast('chat:1', { text: 'between' })
  t.match(await one.next('message'), { data: { text: 'between' } }, 'control frames and broadcasts pass between the fragments')
  one.socket.send('"ref":2}', { fin: true })
  t.same(await one.next('ack'), { type: 'ack', ref: 2, ok: true })

  one.socket.send('{"type":"ping",', { fin: false })
  one.socket.terminate()
  await until(async () => await app.rooms.count('chat:1') === 1, patience)
})

t.test('a fragmented message of Python\'s websockets is delivered as one message', { skip: clients[2]!.skip }, async t => {
  for (const perMessageDeflate of [false, true]) {
    const { url } = await serve(t, { websocket: { options: { perMessageDeflate } } })
    const one = await openPython(t, `${url}/chat:1`)
    await one.next('hello')
    one.sendFragments(['{"type":"message","ref":1,', '"data":{"te', 'xt":"ü', '€😀', ' in parts"}}'])
    t.match(await one.next('message'), { data: { text: 'ü€😀 in parts' } })
    t.match(await one.next('ack'), { ref: 1, ok: true })
  }
})

t.test('fragments that exceed the limit in total are refused', async t => {
  const { url } = await serve(t, { limits })
  const one = await openWs(t, `${url}/chat:1`)
  await one.next('hello')
  for (let index = 0; index < 10; index++) one.socket.send('x'.repeat(1_000), { fin: false })
  t.match(await one.closed, { code: 1009 })
})

t.test('a client that disconnects without a closing handshake leaves its room', async t => {
  const left: LeaveReason[] = []
  const { app, url } = await serve(t, { onLeave: (_session: unknown, reason: LeaveReason) => { left.push(reason) } })
  const witness = await join(t, `${url}/chat:1`)
  const gone = await openWs(t, `${url}/chat:1`)
  const { session } = await gone.next('hello')
  t.match(await told(witness, 'join', session), { count: 2 })
  gone.socket.terminate()
  t.match(await told(witness, 'leave', session), { count: 1 })
  t.match(left, [{ code: 1006 }])
  t.match(await app.rooms.broadcast('chat:1', { text: 'x' }), { local: 1 })
})

t.test('a Python process that dies leaves its room', { skip: clients[2]!.skip }, async t => {
  const { app, url } = await serve(t)
  const witness = await join(t, `${url}/chat:1`)
  const gone = await openPython(t, `${url}/chat:1`)
  const { session } = await gone.next('hello')
  t.match(await told(witness, 'join', session), { count: 2 })
  gone.die()
  t.match(await told(witness, 'leave', session), { count: 1 })
  t.equal(await app.rooms.count('chat:1'), 1)
})

t.test('fetch can broadcast, and gets the reason of a refusal', async t => {
  const { url } = await serve(t)
  const member = await join(t, `${url}/news`)
  const answers: [string, Promise<Response>, number, string][] = [
    ['not by the schema', post(`${url}/news`, '{"hedline":"x"}'), 400, 'FST_ERR_VALIDATION'],
    ['no JSON', post(`${url}/news`, '{'), 400, 'FST_ERR_CTP_INVALID_JSON_BODY'],
    ['no JSON type', post(`${url}/news`, '{"headline":"x"}', 'text/plain'), 415, 'FST_ERR_CTP_INVALID_MEDIA_TYPE'],
    ['a form', fetch(`http://${url}/news`, { method: 'POST', body: new URLSearchParams({ headline: 'x' }) }), 415, 'FST_ERR_CTP_INVALID_MEDIA_TYPE'],
    ['no body', fetch(`http://${url}/news`, { method: 'POST' }), 400, 'FST_ROOMS_BODY_MISSING'],
    ['another origin', fetch(`http://${url}/news`, { method: 'POST', body: '{"headline":"x"}', headers: { 'content-type': 'application/json', origin: 'https://example.com' } }), 403, 'FST_ROOMS_ORIGIN_REFUSED']
  ]
  for (const [what, pending, status, code] of answers) {
    const answer = await pending
    t.equal(answer.status, status, what)
    t.match(await answer.json(), { statusCode: status, code }, what)
  }
  t.equal((await post(`${url}/chat:1`, '{"text":"x"}')).status, 404, 'the topic has no broadcast route')

  t.equal((await post(`${url}/news`, '{"headline":"at last"}', 'application/json; charset=utf-8')).status, 200)
  t.match(await member.next(), { type: 'message', data: { headline: 'at last' } }, 'refused broadcasts are delivered to no member')
})

const run = promisify(execFile)
const curlMissing = await run('curl', ['--version']).then(() => false as const, () => 'curl is not installed')

t.test('curl reads kept messages, continues behind a position, waits for the next message, and posts one once', { skip: process.env.CI === undefined ? curlMissing : false }, async t => {
  const { app, url } = await serve(t)
  const curl = async (query: string, ...options: string[]): Promise<{ status: number, headers: Record<string, string[]>, body: any }> => {
    const { stdout } = await run('curl', ['--silent', '--show-error', '--max-time', '30', '--write-out', '\n%{http_code}\n%{header_json}', ...options, `http://${url}/kept${query}`])
    const [, body, status, headers] = /^([\s\S]*?)\n(\d{3})\n([\s\S]*)$/.exec(stdout)!
    return { status: Number(status), headers: JSON.parse(headers!), body: body === '' ? undefined : JSON.parse(body!) }
  }
  const post = (key: string): ReturnType<typeof curl> => curl('', '--header', 'content-type: application/json', '--header', `idempotency-key: ${key}`, '--data', '"posted"')

  const empty = await curl('')
  t.equal(empty.status, 200)
  t.same(empty.headers['cache-control'], ['no-store'])
  t.match(empty.body, { topic: 'kept', id: String, count: 0, messages: [], complete: true })
  for (const data of [1, 2]) await app.rooms.broadcast('kept', data)
  const { body: page } = await curl(`?since=${empty.body.id}`)
  t.match(page, { messages: [{ data: 1 }, { data: 2 }], recovered: true, complete: true })

  const waiting = curl(`?since=${page.id}&wait=20000`)
  await until(() => app.rooms.stats().waiting === 1, patience)
  await app.rooms.broadcast('kept', 3)
  const { body: next } = await waiting
  t.match(next, { messages: [{ data: 3 }], recovered: true, complete: true })
  t.same((await curl(`?since=${next.id}&wait=50`)).body.messages, [], 'no message came')

  const first = await post('k'.repeat(16))
  t.match(first, { status: 200, body: { published: true, id: String } })
  t.match(await post('k'.repeat(16)), { status: 200, body: { published: true, id: first.body.id, duplicate: true } })
  t.match((await curl(`?since=${page.id}`)).body, { messages: [{ data: 3 }, { data: 'posted' }] })
  await app.rooms.broadcast('kept', 5)
  await app.rooms.broadcast('kept', 6)
  t.match((await curl(`?since=${empty.body.id}`)).body, { messages: [{ data: 'posted' }, { data: 5 }, { data: 6 }], recovered: false, complete: false })
  for (const query of ['?since=yesterday', '?wait=50', `?since=${next.id}&wait=60001`]) t.equal((await curl(query)).status, 400, query)
})

t.test('fetch reads a topic without joining it', async t => {
  const { url } = await serve(t)
  const answer = await fetch(`http://${url}/news`)
  t.equal(answer.status, 200)
  t.equal(answer.headers.get('content-type'), 'application/json; charset=utf-8')
  t.match(await answer.json(), { topic: 'news', count: 0, messages: [] })
  t.equal((await fetch(`http://${url}/weather`)).status, 404)
  t.equal((await fetch(`http://${url}/chat:1`)).status, 200)
  t.equal((await fetch(`http://${url}/chat%3A1`)).status, 200)
})
