import { Type } from '@sinclair/typebox'
import t, { type Test } from 'tap'
import { connect, createRooms, join, listen, until, type AnyOptions } from './helpers/app.ts'

async function serve (t: Test, options: AnyOptions = {}) {
  const errors: Error[] = []
  const app = await createRooms(t, { onError: error => { errors.push(error) }, ...options })
  return { app, rooms: app.rooms as any, url: await listen(app), errors }
}

t.test('in raw mode a frame is only the payload, in both directions', async t => {
  const { rooms, url } = await serve(t)
  const raw = await connect(t, `${url}/rooms/news`, 'rooms.raw')
  t.equal(raw.socket.protocol, 'rooms.raw')
  await until(async () => await rooms.count('news') === 1)
  const v1 = await join(t, `${url}/rooms/news`)
  const sent: [text: string, data: unknown, text: string][] = [
    ['{"a": 1}', { a: 1 }, '{"a":1}'],
    ['[1, 2]', [1, 2], '[1,2]'],
    ['7', 7, '7'],
    ['null', null, 'null'],
    ['"quoted"', 'quoted', 'quoted'],
    ['plain text: not JSON', 'plain text: not JSON', 'plain text: not JSON'],
    ['', '', ''],
    ['forbidden prototype', 'forbidden prototype', 'forbidden prototype'],
    ['{"type":"ping","ref":1}', { type: 'ping', ref: 1 }, '{"type":"ping","ref":1}']
  ]
  for (const [text, data, echo] of sent) {
    raw.send(text)
    t.match(await v1.next('message'), { data })
    t.equal(await raw.text(), echo)
  }
  await rooms.broadcast('news', { from: 'code' })
  t.equal(await raw.text(), '{"from":"code"}')
  await rooms.send([...await rooms.members('news')][0].session, 'private')
  t.equal(await raw.text(), 'private')
  t.equal(raw.received.length, sent.length + 2, 'raw members get no hello, presence or ack')
})

t.test('on a typed topic a string keeps its quotes, in both directions', async t => {
  const { rooms, url } = await serve(t, { topics: { words: { message: Type.String(), publish: true } } })
  const raw = await connect(t, `${url}/rooms/words`, 'rooms.raw')
  await until(async () => await rooms.count('words') === 1)
  await rooms.broadcast('words', 'one')
  t.equal(await raw.text(), '"one"')
  raw.send('"two"')
  t.equal(await raw.text(), '"two"')
  await rooms.send((await rooms.members('words'))[0].session, 'three')
  t.equal(await raw.text(), '"three"')
  raw.send('four')
  t.same(await raw.closed, { code: 4000, reason: 'bad_frame' }, 'plain text is not a payload of a typed topic')
  t.equal(raw.received.length, 3, 'no frame precedes the close')
})

t.test('in raw mode each refusal is a close', async t => {
  const { rooms, url, errors } = await serve(t, {
    topics: {
      chat: { message: Type.Object({ a: Type.Integer() }), publish: true, limits: { payload: 50 } },
      news: { message: Type.Integer() },
      open: { publish: true },
      secret: { publish: true }
    },
    authorize: ({ action, topic }) => action !== 'publish' || topic !== 'secret',
    onMessage: {
      open: (_session, payload) => {
        if (payload === 'limit') throw Object.assign(new Error('slowly'), { statusCode: 429 })
        if (payload === 'broker') throw Object.assign(new Error('down'), { statusCode: 503, code: 'FST_ROOMS_BROKER_DOWN' })
        throw new Error('inner text')
      }
    }
  })
  const cases: [topic: string, frame: string | Buffer, code: number, reason: string][] = [
    ['chat', '{"a":"x"}', 4022, 'invalid_payload'],
    ['chat', '{', 4000, 'bad_frame'],
    ['chat', '{"a":1,"__proto__":{}}', 4000, 'bad_frame'],
    ['chat', `{"a":1${' '.repeat(60)}}`, 1009, 'too_large'],
    ['chat', Buffer.from('{"a":1}'), 4000, 'bad_frame'],
    ['news', '1', 4003, 'forbidden'],
    ['open', '{"__proto__":{}}', 4000, 'bad_frame'],
    ['open', 'limit', 4101, 'rate_limited'],
    ['open', 'any', 1011, 'internal_error'],
    ['secret', 'x', 4003, 'forbidden']
  ]
  for (const [topic, frame, code, reason] of cases) {
    const raw = await connect(t, `${url}/rooms/${topic}`, 'rooms.raw')
    raw.send(frame)
    t.same(await raw.closed, { code, reason }, `${topic} ${frame}`)
    t.same(raw.received, [])
  }
  t.same(errors.map(({ message }) => message), ['inner text'])
  t.equal(rooms.stats().members, 0)
})

t.test('the return value of onMessage is dropped in raw mode, and messages that the hook sends arrive', async t => {
  const { rooms, url } = await serve(t, { onMessage: { '*': async (session, payload) => { await session.rooms.broadcast(session.topic, [payload]) } } })
  const raw = await connect(t, `${url}/rooms/news`, 'rooms.raw')
  await until(async () => await rooms.count('news') === 1)
  raw.send('hi')
  t.equal(await raw.text(), '["hi"]')
  t.match(await raw.close(), { code: 1005 })
  t.equal(raw.received.length, 1)
})

t.test('a raw member is closed and refused without bye', async t => {
  const { rooms, url } = await serve(t, { onJoin: session => session.connection.mode !== 'rooms.raw' || session.topic !== 'closed' })
  const raw = await connect(t, `${url}/rooms/news`, 'rooms.raw')
  await until(async () => await rooms.count('news') === 1)
  await rooms.kick({ topic: 'news' })
  t.same(await raw.closed, { code: 4005, reason: 'kicked' })
  const refused = await connect(t, `${url}/rooms/closed`, 'rooms.raw')
  t.same(await refused.closed, { code: 4003, reason: 'forbidden' })
  t.same([...raw.received, ...refused.received], [])
})

t.test('a message of onJoin is the first frame of a raw member', async t => {
  const { rooms, url } = await serve(t, { onJoin: async session => { await session.send('welcome') } })
  const raw = await connect(t, `${url}/rooms/news?presence=1`, 'rooms.raw')
  await until(async () => await rooms.count('news') === 1)
  await rooms.broadcast('news', 1)
  t.same([await raw.text(), await raw.text()], ['welcome', '1'])
})

t.test('one bad frame closes a raw member, unless the host ignores it', async t => {
  const { url } = await serve(t, { topics: { chat: { message: Type.Integer(), publish: true } }, onInvalid: 'ignore', limits: { badFrames: 3 } })
  const raw = await connect(t, `${url}/rooms/chat`, 'rooms.raw')
  raw.send('x')
  raw.send('"x"')
  raw.send('1')
  t.equal(await raw.text(), '1')
  for (let i = 0; i < 3; i++) raw.send('x')
  t.match(await raw.closed, { code: 4000 })
})
