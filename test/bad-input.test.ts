import { Type } from '@sinclair/typebox'
import t, { type Test } from 'tap'
import { connect, createRooms, join, listen, until, type AnyOptions } from './helpers/app.ts'
import { joinMute } from './helpers/wire.ts'

async function serve (t: Test, options: AnyOptions = {}) {
  const errors: Error[] = []
  const app = await createRooms(t, { onError: error => { errors.push(error) }, ...options })
  return { app, rooms: app.rooms as any, url: await listen(app), errors }
}

const badFrames: [what: string, frame: string, fault: string | RegExp, ref?: string | number][] = [
  ['malformed JSON', '{"type":', /^bad frame: no JSON \(.+\); a frame looks like \{"type":"message","data":…\}$/],
  ['an empty text', '', /^bad frame: no JSON/],
  ['NaN', '{"type":"ping","ref":NaN}', /^bad frame: no JSON/],
  ['two values', '{"type":"ping"} {"type":"ping"}', /^bad frame: no JSON/],
  ['a poisoned prototype', '{"type":"message","data":{"__proto__":{"admin":true}}}', /^bad frame: no JSON \(.*forbidden prototype[^;]*\)$/],
  ['an escaped poisoned prototype', '{"type":"message","data":{"\\u005f_proto__":{"admin":true}}}', /^bad frame: no JSON \(.*forbidden prototype[^;]*\)$/],
  ['a poisoned constructor', '{"type":"message","data":{"constructor":{"prototype":{"admin":true}}}}', /^bad frame: no JSON \(.*forbidden prototype[^;]*\)$/],
  ['an array', '[{"type":"ping"}]', 'bad frame: a frame is a JSON object; a frame looks like {"type":"message","data":…}'],
  ['null', 'null', 'bad frame: a frame is a JSON object; a frame looks like {"type":"message","data":…}'],
  ['a number', '7', 'bad frame: a frame is a JSON object; a frame looks like {"type":"message","data":…}'],
  ['a string', '"ping"', 'bad frame: a frame is a JSON object; a frame looks like {"type":"message","data":…}'],
  ['an unknown type', '{"type":"shout","ref":7}', 'bad frame: the type "shout" is not known here', 7],
  ['a type of later', '{"type":"join","ref":7}', 'bad frame: the type "join" is not known here', 7],
  ['a type of the server', '{"type":"hello","ref":7}', 'bad frame: the type "hello" is not known here', 7],
  ['no type', '{"data":1,"ref":"r"}', 'bad frame: "type" is missing; a frame looks like {"type":"message","data":…}', 'r'],
  ['no data', '{"type":"message","ref":7}', 'bad frame: "data" is missing', 7],
  ['no data to send', '{"type":"direct","to":"x","ref":7}', 'bad frame: "data" is missing', 7],
  ['no receiver', '{"type":"direct","data":1,"ref":7}', 'bad frame: "to" is a session id or "user:" and a user', 7],
  ['an empty user', '{"type":"direct","to":"user:","data":1,"ref":7}', 'bad frame: "to" is a session id or "user:" and a user', 7],
  ['a list of receivers', '{"type":"direct","to":["x"],"data":1,"ref":7}', 'bad frame: "to" is a session id or "user:" and a user', 7],
  ['an ack of nothing', '{"type":"ack","data":1}', 'bad frame: "ref" is missing'],
  ['an object as ref', '{"type":"ping","ref":{}}', 'bad frame: "ref" is a string of 1 to 64 characters or a safe integer'],
  ['an infinite ref', '{"type":"ping","ref":1e400}', 'bad frame: "ref" is a string of 1 to 64 characters or a safe integer'],
  ['an empty ref', '{"type":"ping","ref":""}', 'bad frame: "ref" is a string of 1 to 64 characters or a safe integer'],
  ['a long ref', `{"type":"ping","ref":"${'r'.repeat(65)}"}`, 'bad frame: "ref" is a string of 1 to 64 characters or a safe integer']
]

t.test('a bad frame is answered with its fault, loses no other frame, and does not affect other members', async t => {
  const { rooms, url, errors } = await serve(t)
  const client = await join(t, `${url}/rooms/news`)
  const other = await join(t, `${url}/rooms/news`)
  for (const [what, frame, message, ref] of badFrames) {
    client.send(frame)
    const answer: any = ref === undefined ? await client.next('error') : await client.next('ack')
    t.match(answer, ref === undefined ? { error: { code: 'FST_ROOMS_BAD_FRAME', message } } : { ref, ok: false, error: { code: 'FST_ROOMS_BAD_FRAME', message } }, what)
    t.match(await client.ask({ type: 'ping' }), { ok: true })
  }
  client.socket.send(Buffer.from('{"type":"ping"}'), { binary: true })
  t.match(await client.next('error'), { error: { code: 'FST_ROOMS_BAD_FRAME', message: 'bad frame: binary frames are not taken here' } })
  await until(() => other.received.length >= 2)
  t.same(other.received.map(text => JSON.parse(text).type), ['hello', 'presence'])
  t.equal(rooms.stats().invalid, badFrames.length + 1)
  t.equal(rooms.stats().received, badFrames.length * 2 + 1)
  t.same(errors, [])
  t.equal(({} as any).admin, undefined)
})

t.test('unusual but valid frames are taken', async t => {
  const { url } = await serve(t)
  const client = await join(t, `${url}/rooms/news`)
  const messages: [string, unknown][] = [
    ['{"type":"message","data":1,"data":2}', 2],
    ['\ufeff{"type":"message","data":"bom"}', 'bom'],
    [' \n{"type":"message","data":{"constructor":1}}\t', { constructor: 1 }],
    ['{"type":"message","data":{"a":{"a":{"a":1e400}}}}', { a: { a: { a: null } } }],
    ['{"type":"message","data":"\\u0000\\ud800","topic":"other","from":"me","user":"root","id":"x"}', '\u0000\ud800']
  ]
  for (const [text, data] of messages) {
    client.send(text)
    const message: any = await client.next('message')
    t.same(message.data, data)
    t.equal(message.from, client.hello.session)
    t.notOk('user' in message)
  }
})

t.test('a frame over the limit is refused with a code of its own, and the connection stays open', async t => {
  const { rooms, url } = await serve(t, { limits: { payload: 100 } })
  const client = await join(t, `${url}/rooms/news`)
  const frame = (length: number) => `{"type":"message","data":"${'x'.repeat(length - 28)}"}`
  t.equal(frame(100).length, 100)
  client.send(frame(100))
  t.match(await client.next('message'), { data: /^x+$/ })
  for (const length of [101, 200]) {
    client.send(frame(length))
    t.match(await client.next('error'), { error: { code: 'FST_ROOMS_FRAME_TOO_LARGE', message: `a frame of ${length} bytes is over the limit of 100` } })
  }
  client.send('ü'.repeat(51))
  t.match(await client.next('error'), { error: { code: 'FST_ROOMS_FRAME_TOO_LARGE', message: 'a frame of 102 bytes is over the limit of 100' } }, 'the limit counts bytes, not characters')
  for (let i = 0; i < 20; i++) client.send('x'.repeat(150))
  t.match(await client.ask({ type: 'ping' }), { ok: true }, 'a frame that is too large does not count as a bad frame')
  t.equal(rooms.stats().invalid, 23)
})

t.test('a frame over twice the limit ends its own connection with 1009', async t => {
  const { rooms, url, errors } = await serve(t, { limits: { payload: 100 } })
  const client = await join(t, `${url}/rooms/news`)
  const other = await join(t, `${url}/rooms/news`)
  client.send('x'.repeat(201))
  t.match(await client.closed, { code: 1009 })
  await until(async () => await rooms.count('news') === 1)
  t.match(await other.ask({ type: 'ping' }), { ok: true })
  t.equal(rooms.stats().invalid, 1)
  t.same(errors, [])
})

t.test('text that is not UTF-8 ends its own membership at once with 1007, even if the peer stays connected', async t => {
  const reasons: unknown[] = []
  const { rooms, url, errors } = await serve(t, { onLeave: (_session, reason) => { reasons.push(reason) } })
  const other = await join(t, `${url}/rooms/news`)
  const peer = await joinMute(t, `${url}/rooms/news`)
  await until(async () => await rooms.count('news') === 2)
  peer.send(1, Buffer.from([0x22, 0xc3, 0x28, 0x22]))
  await until(() => peer.text().includes('\x88\x02\x03\xef'))
  t.equal(await rooms.count('news'), 1)
  t.match(reasons, [{ code: 1007 }])
  t.match(await other.ask({ type: 'ping' }), { ok: true })
  t.equal(rooms.stats().invalid, 1)
  t.same(errors, [])
})

t.test('a violation of RFC 6455 (an unmasked frame) ends its own connection with 1002', async t => {
  const { rooms, url, errors } = await serve(t)
  const peer = await joinMute(t, `${url}/rooms/news`)
  await until(async () => await rooms.count('news') === 1)
  peer.socket.write(Buffer.from([0x81, 0x01, 0x31]))
  await until(() => peer.text().includes('\x88\x02\x03\xea'))
  peer.socket.end()
  await until(() => rooms.stats().connections === 0)
  t.equal(rooms.stats().invalid, 1)
  t.same(errors, [])
})

t.test('deeply nested JSON is a fault of the member, not of the server', async t => {
  const { rooms, url, errors } = await serve(t)
  const client = await join(t, `${url}/rooms/news`)
  const deep = `${'['.repeat(30_000)}${']'.repeat(30_000)}`
  client.send(`{"type":"message","ref":1,"data":${deep}}`)
  t.match(await client.next('ack'), { ref: 1, ok: false, error: { code: 'FST_ROOMS_INVALID_PAYLOAD' } })
  client.send(`{"type":"direct","to":"${client.hello.session}","ref":2,"data":${deep}}`)
  t.match(await client.next('ack'), { ref: 2, ok: false, error: { code: 'FST_ROOMS_INVALID_PAYLOAD' } })
  client.send(`{"type":"presence","ref":3,"info":${deep}}`)
  t.match(await client.next('ack'), { ref: 3, ok: false, error: { code: 'FST_ROOMS_INVALID_PAYLOAD' } })
  client.send(`{"type":"ping","ref":4,"more":${deep}}`)
  t.match(await client.next('ack'), { ref: 4, ok: true })
  t.same(errors, [])
  t.match(rooms.stats(), { invalid: 3, errors: 0, broadcasts: 0 })
})

const topics = {
  chat: { message: Type.Object({ text: Type.String({ maxLength: 5 }), n: Type.Optional(Type.Integer()) }), publish: true as const },
  news: { message: Type.String() }
}

t.test('an invalid payload is refused with the place and the rule, and is delivered to no member', async t => {
  const { rooms, url, errors } = await serve(t, { topics })
  const client = await join(t, `${url}/rooms/chat`)
  const cases: [unknown, { path: string, message: string | RegExp }][] = [
    [{ text: 'too long' }, { path: '/text', message: /5 characters/ }],
    [{}, { path: '', message: /'text'/ }],
    [{ text: 'a', n: '1' }, { path: '/n', message: 'must be integer' }],
    [{ text: 'a', admin: true }, { path: '', message: /"admin"/ }],
    ['a', { path: '', message: 'must be object' }],
    [null, { path: '', message: 'must be object' }]
  ]
  for (const [data, detail] of cases) {
    t.match(await client.ask({ type: 'message', data }), { ok: false, error: { code: 'FST_ROOMS_INVALID_PAYLOAD', message: /^invalid payload: /, details: [detail] } })
    t.match(await client.ask({ type: 'direct', to: client.hello.session, data }), { ok: false, error: { code: 'FST_ROOMS_INVALID_PAYLOAD', details: [detail] } })
  }
  client.send({ type: 'message', data: 7 })
  t.match(await client.next('error'), { error: { code: 'FST_ROOMS_INVALID_PAYLOAD', details: [{ message: 'must be object' }] } }, 'a frame without a ref is answered with an error frame')
  t.notOk(client.received.some(text => /"type":"(?:message|direct)"/.test(text)))
  for (let i = 0; i < 20; i++) client.send({ type: 'message', data: i })
  t.match(await client.ask({ type: 'message', data: { text: 'a' } }), { ok: true }, 'an invalid payload does not count as a bad frame')
  t.match(rooms.stats(), { broadcasts: 1, invalid: 33 })
  t.same(errors, [])
})

t.test('in a topic without publish, members may not write to each other either', async t => {
  const { rooms, url, errors } = await serve(t, { topics })
  const client = await join(t, `${url}/rooms/news`)
  t.match(await client.ask({ type: 'message', data: 'x' }), { ok: false, error: { code: 'FST_ROOMS_FORBIDDEN', message: 'not allowed: members may not publish here' } })
  t.match(await client.ask({ type: 'direct', to: client.hello.session, data: 'x' }), { ok: false, error: { code: 'FST_ROOMS_FORBIDDEN', message: 'not allowed: members may not write here' } })
  client.send({ type: 'message', data: 'x' })
  t.match(await client.next('error'), { error: { code: 'FST_ROOMS_FORBIDDEN' } })
  await rooms.broadcast('news', 'to all')
  t.match(await client.next('message'), { data: 'to all' })
  t.same(errors, [])
})

t.test('ten bad frames in a row are answered, and close with 4000', async t => {
  const { rooms, url } = await serve(t)
  const client = await join(t, `${url}/rooms/news`)
  for (let i = 0; i < 12; i++) client.send('{')
  t.same(await client.closed, { code: 4000, reason: 'bad_frame' })
  const frames = client.received.map(text => JSON.parse(text))
  t.equal(frames.filter(({ type, error }) => type === 'error' && error.code === 'FST_ROOMS_BAD_FRAME').length, 10)
  t.match(frames.at(-1), { type: 'bye', code: 4000 })
  t.notOk('retry' in frames.at(-1))
  t.equal(rooms.stats().invalid, 10)
})

t.test('a good frame restarts the count of bad frames, and the bound is an option', async t => {
  const { url } = await serve(t, { limits: { badFrames: 3 } })
  const client = await join(t, `${url}/rooms/news`)
  for (let i = 0; i < 5; i++) {
    client.send('{')
    client.send('[]')
    client.send({ type: 'ping' })
  }
  t.match(await client.ask({ type: 'ping' }), { ok: true })
  for (let i = 0; i < 3; i++) client.send('{')
  t.match(await client.closed, { code: 4000 })
})

t.test('onInvalid "ignore" answers no bad frame, but ten in a row still close', async t => {
  const { rooms, url } = await serve(t, { topics, onInvalid: 'ignore' })
  const client = await join(t, `${url}/rooms/chat`)
  client.send({ type: 'message', data: 1, ref: 1 })
  for (let i = 0; i < 9; i++) client.send('{')
  client.send('x'.repeat(70_000))
  t.match(await client.ask({ type: 'ping' }), { ok: true })
  t.same(client.received.map(text => JSON.parse(text).type), ['hello', 'ack'])
  t.equal(rooms.stats().invalid, 11)
  for (let i = 0; i < 10; i++) client.send('{')
  t.match(await client.closed, { code: 4000 })
})

t.test('onInvalid "close" closes with the code of the fault', async t => {
  const { url } = await serve(t, { topics, onInvalid: 'close' })
  const cases: [frame: unknown, code: number, reason: string][] = [
    ['{', 4000, 'bad_frame'],
    [{ type: 'message', data: 1 }, 4022, 'invalid_payload'],
    ['x'.repeat(70_000), 1009, 'too_large']
  ]
  for (const [frame, code, reason] of cases) {
    const client = await join(t, `${url}/rooms/chat`)
    client.send(frame)
    t.same(await client.closed, { code, reason })
    t.match(client.received.map(text => JSON.parse(text)).slice(1), [{ type: 'bye', code, reason }])
  }
})

t.test('onInvalid as a function gets the fault and decides about it', async t => {
  const faults: any[] = []
  let answer: any
  const { url, errors } = await serve(t, {
    topics,
    onInvalid: (session, fault) => {
      faults.push([session.topic, fault])
      return answer()
    }
  })
  const client = await join(t, `${url}/rooms/chat`)
  answer = () => 'answer'
  t.match(await client.ask({ type: 'message', data: 1 }), { ok: false, error: { code: 'FST_ROOMS_INVALID_PAYLOAD' } })
  t.match(faults, [['chat', { code: 'FST_ROOMS_INVALID_PAYLOAD', message: /^invalid payload/, details: [{ path: '', message: 'must be object' }] }]])
  answer = () => 'ignore'
  client.send({ type: 'message', data: 1, ref: 'ignored' })
  t.match(await client.ask({ type: 'ping' }, 'p'), { ok: true })
  t.notOk(client.received.some(text => text.includes('"ignored"')))
  for (const nonsense of [undefined, 'shout', 7, Promise.resolve('close')]) {
    answer = () => nonsense
    t.match(await client.ask({ type: 'message', data: 1 }), { ok: false }, 'any other return value means "answer"')
  }
  t.same(errors, [])
  answer = () => { throw new Error('of the host') }
  t.match(await client.ask({ type: 'message', data: 1 }), { ok: false, error: { code: 'FST_ROOMS_INVALID_PAYLOAD' } })
  t.match(errors, [{ message: 'of the host' }])
  answer = () => Promise.reject(new Error('too late'))
  t.match(await client.ask({ type: 'message', data: 1 }), { ok: false })
  await until(() => errors.length === 2)
  t.match(errors[1], { message: 'too late' }, 'an error of onInvalid means "answer", and onError gets it')
  answer = () => 'close'
  client.send('{')
  t.match(await client.closed, { code: 4000 })
})

t.test('an error of onMessage is a failure of the server: the member gets no inner text, and the host gets the whole error', async t => {
  let failure: unknown
  const { url, errors } = await serve(t, { onMessage: { '*': async () => { throw failure } } })
  const client = await join(t, `${url}/rooms/news`)
  failure = new Error('password of the database')
  t.same(await client.ask({ type: 'message', data: 1 }, 1), { type: 'ack', ref: 1, ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED', message: 'the server failed on this message' } })
  client.send({ type: 'message', data: 1 })
  t.match(await client.next('error'), { error: { code: 'FST_ROOMS_HANDLER_FAILED' } })
  failure = 'a string'
  t.match(await client.ask({ type: 'message', data: 1 }), { ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' } })
  failure = Object.assign(new Error('too much'), { statusCode: 429, code: 'HOST_LIMIT' })
  t.match(await client.ask({ type: 'message', data: 1 }), { ok: false, error: { code: 'HOST_LIMIT', message: 'too much' } })
  failure = Object.assign(new Error('no code'), { statusCode: 409 })
  t.match(await client.ask({ type: 'message', data: 1 }), { ok: false, error: { message: 'no code' } })
  t.same(errors.map(({ message }) => message), ['password of the database', 'password of the database', 'a string'], 'onError gets each failure once')
})

t.test('an invalid payload that onMessage broadcasts is a fault of the host', async t => {
  const { url, errors } = await serve(t, { topics, onMessage: { chat: session => session.rooms.broadcast('chat', { nope: 1 }) } })
  const client = await join(t, `${url}/rooms/chat`)
  t.match(await client.ask({ type: 'message', data: { text: 'a' } }), { ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' } })
  t.match(errors, [{ code: 'FST_ROOMS_INVALID_PAYLOAD' }])
})

t.test('frames that arrive after the close of their session are ignored', async t => {
  const { rooms, url } = await serve(t)
  const client = await connect(t, `${url}/rooms/news`)
  const { session } = await client.next('hello')
  const kicked = rooms.kick({ session })
  client.send({ type: 'message', data: 'late' })
  await kicked
  await client.closed
  t.equal(rooms.stats().broadcasts, 0)
})
