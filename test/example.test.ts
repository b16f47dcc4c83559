import { once } from 'node:events'
import { connect as connectTcp } from 'node:net'
import t, { type Test } from 'tap'
import { connect, join, refused, type Client } from './helpers/app.ts'
import { freePort, startExample, withoutSignals, type Example } from './helpers/process.ts'

const headers = { 'content-type': 'application/json' }

function post (url: string, body: unknown): Promise<Response> {
  return fetch(url, { method: 'POST', headers, body: JSON.stringify(body) })
}

/** A visitor in a room of the example server. */
function enter (t: Test, host: string, room: string, name: string) {
  return join(t, `${host}/chat:${room}?presence=1&name=${encodeURIComponent(name)}`)
}

/** Reads presence frames until one matches. */
async function presence (client: Client, says: (frame: any) => boolean): Promise<any> {
  for (;;) {
    const frame = await client.next('presence')
    if (says(frame)) return frame
  }
}

// The example server takes a second to start, so tests share one if they can. Each test has rooms and figures of its own.
const { url, host } = await startExample(t, 'example/server.ts')

t.test('the example server: members of the lobby see others join, talk, change their name and leave', async t => {
  const teal = await enter(t, host, 'lobby', 'Teal')
  const ruby = await enter(t, host, 'lobby', 'Ruby')

  t.match(await presence(teal, frame => frame.join?.some((member: any) => member.session === ruby.hello.session)), { count: 2 })
  const { state } = await ruby.next('presence')
  t.same(new Set(state!.map(({ info }: any) => info.name)), new Set(['Teal', 'Ruby']), 'the newcomer gets the member list')

  teal.send({ type: 'message', data: { text: 'good morning' } })
  for (const client of [teal, ruby]) {
    const { data } = await client.next('message')
    t.match(data, { user: 'Teal', name: 'Teal', text: 'good morning' })
    t.ok(Date.parse((data as any).at) <= Date.now(), 'the server adds the time')
  }

  t.match(await teal.ask({ type: 'presence', info: { name: 'Amber' } }), { ok: true })
  await presence(ruby, frame => frame.join?.some((member: any) => member.session === teal.hello.session && member.info.name === 'Amber'))
  teal.send({ type: 'message', data: { text: 'it is me' } })
  t.match(await ruby.next('message'), { data: { name: 'Amber' } }, 'messages carry the new name')

  await teal.close()
  t.match(await presence(ruby, frame => frame.leave !== undefined), { count: 1, leave: [{ session: teal.hello.session }] }, 'a leave is told when the person does not come back')
})

t.test('the example server: a token says who a visitor is, and one connection carries all topics', async t => {
  const bearer = (token: string) => ['rooms.v1', `bearer.${Buffer.from(token).toString('base64url')}`]
  const zoe = await connect(t, `${host}/rooms`, bearer(`u1.${encodeURIComponent('Zoë M.')}`))
  await zoe.next('hello')
  for (const topic of ['chat:attics', 'dailyNews']) zoe.send({ type: 'join', topic, ref: 1 })
  for (const topic of ['chat:attics', 'dailyNews']) t.match(await zoe.next('hello'), { topic })
  zoe.send({ type: 'message', topic: 'chat:attics', data: { text: 'here I am' } })
  t.match(await zoe.next('message'), { topic: 'chat:attics', data: { user: 'u1', name: 'Zoë M.', text: 'here I am' } })
  for (const token of ['u1', 'u1.', 'u1.%E0%A4%A', `u1.${'x'.repeat(33)}`]) t.match(await refused(`${host}/rooms`, bearer(token)), { status: 400, body: { code: 'INVALID_NAME' } }, token)
})

t.test('the example server: the assistant writes into a topic of its own until it is done or stopped', async t => {
  const ask = async (question: string) => (await (await post(`${url}/answers`, { question })).json() as { topic: string }).topic
  t.equal((await post(`${url}/answers`, { question: ' ' })).status, 400)
  const topic = await ask('Why?')
  const reader = await join(t, `${host}/${topic}`)
  t.match(await reader.next('message'), { data: 'You have asked: “Why?” ' })
  await reader.next('message')
  const id = topic.slice('answer:'.length)
  t.same(await (await post(`${url}/answers/${id}/stop`, {})).json(), { stopped: true })
  t.match(await reader.next('end'), { reason: 'stopped' })
  t.same(await (await post(`${url}/answers/${id}/stop`, {})).json(), { stopped: false })
})

t.test('the example server: the chat keeps its messages for pages that are opened later, and for those that come back', async t => {
  const teal = await enter(t, host, 'attic', 'Teal')
  teal.send({ type: 'message', data: { text: 'first' } })
  const { id } = await teal.next('message')
  await teal.close()
  const ruby = await enter(t, host, 'attic', 'Ruby')
  await ruby.ask({ type: 'message', data: { text: 'second' } })
  const back = await connect(t, `${host}/chat:attic?name=Teal&since=${id}`)
  t.match(await back.next('hello'), { recovered: true, replayed: 1 })
  t.match(await back.next('message'), { data: { name: 'Ruby', text: 'second' } })
  const late = await connect(t, `${host}/chat:attic?name=Olive&since=0`)
  t.match(await late.next('hello'), { replayed: 2 })
  for (const text of ['first', 'second']) t.match(await late.next('message'), { data: { text } })
})

t.test('the example server: a private message reaches its receiver only, in the same room only', async t => {
  const [teal, ruby, slate] = await Promise.all([enter(t, host, 'study', 'Teal'), enter(t, host, 'study', 'Ruby'), enter(t, host, 'study', 'Slate')])
  const stranger = await join(t, `${host}/chat:kitchen?name=Olive`)

  t.match(await teal.ask({ type: 'direct', to: ruby.hello.session, data: { text: 'between us' } }), { ok: true, data: { local: 1 } })
  t.match(await ruby.next('direct'), { data: { text: 'between us' }, from: teal.hello.session, user: 'Teal' })
  t.match(await teal.ask({ type: 'direct', to: stranger.hello.session, data: { text: 'hello there' } }), { ok: false, error: { code: 'FST_ROOMS_NO_SUCH_SESSION' } })
  t.match(await teal.ask({ type: 'direct', to: 'nobody', data: { text: 'hello?' } }), { ok: false, error: { code: 'FST_ROOMS_NO_SUCH_SESSION' } })

  await ruby.ask({ type: 'ping' })
  for (const client of [slate, stranger]) {
    await client.ask({ type: 'ping' })
    t.notOk(client.received.some(frame => frame.includes('"direct"')), 'other members do not get it')
  }
})

t.test('the example server: a visitor without a name may listen but not speak, and an invalid name is refused', async t => {
  const teal = await enter(t, host, 'hall', 'Teal')
  const listener = await join(t, `${host}/chat:hall`)
  for (const frame of [
    { type: 'message', data: { text: 'hi' } },
    { type: 'direct', to: teal.hello.session, data: { text: 'hi' } },
    { type: 'presence', info: { name: 'Teal' } }
  ]) t.match(await listener.ask(frame), { ok: false, error: { code: 'FST_ROOMS_FORBIDDEN' } })
  await teal.ask({ type: 'message', data: { text: 'listen' } })
  t.match(await listener.next('message'), { data: { text: 'listen' } })

  for (const name of ['', '%20%20', 'x'.repeat(33)]) t.match(await refused(`${host}/chat:hall?name=${name}`), { status: 400, body: { code: 'INVALID_NAME' } })
  t.match(await refused(`${host}/weather`), { status: 404 }, 'an undeclared topic does not exist')
})

t.test('the example server: posted figures reach all members, and later ones as well', async t => {
  const early = await join(t, `${host}/dailyNews`)
  const figures = [{ name: 'visits', value: 3, at: '2026-01-01T12:00:00Z' }, { name: 'orders', value: 1.5 }]
  const response = await post(`${url}/dailyDashBoard`, figures)
  t.equal(response.status, 200)
  t.match(await response.json(), { topic: 'dailyNews', local: 1, published: true })
  const { id, data } = await early.next('message')
  t.match(data, [figures[0], { name: 'orders', value: 1.5, at: String }], 'the server adds the time')
  t.ok(Date.parse((data as any)[1].at) <= Date.now())

  const late = await connect(t, `${host}/dailyNews?since=0`)
  for (let { replayed } = await late.next('hello'); replayed! > 1; replayed!--) await late.next('message')
  t.match(await late.next('message'), { id, data }, 'the last one of those that are kept')
  const back = await connect(t, `${host}/dailyNews?since=${early.hello.id}`)
  t.match(await back.next('hello'), { recovered: true, replayed: 1 })
  t.match(await back.next('message'), { id, data })
})

t.test('the example server: invalid figures are refused with the reason, and reach no member', async t => {
  const client = await join(t, `${host}/dailyNews`)
  for (const wrong of [
    { name: 'visits', value: 3 },
    [{ name: 'visits', value: '3' }],
    [{ name: 'visits' }],
    [{ name: '', value: 3 }],
    [{ name: 'visits', value: 3, at: 'yesterday' }],
    [{ name: 'visits', value: 3, colour: 'red' }],
    [{ name: 'visits', value: 3 }, { name: 'orders', value: null }]
  ]) {
    const response = await post(`${url}/dailyDashBoard`, wrong)
    t.equal(response.status, 400, JSON.stringify(wrong))
    t.match(await response.json(), { code: 'FST_ERR_VALIDATION', message: /body/ })
  }
  const form = await fetch(`${url}/dailyDashBoard`, { method: 'POST', body: 'name=visits' })
  t.equal(form.status, 415)
  const stranger = await fetch(`${url}/dailyDashBoard`, { method: 'POST', headers: { ...headers, origin: 'http://elsewhere.example' }, body: '[]' })
  t.equal(stranger.status, 403, 'pages of other origins may not post')

  await post(`${url}/dailyDashBoard`, [{ name: 'visits', value: 4 }])
  t.match((await client.next('message')).data, [{ name: 'visits', value: 4 }], 'the first message is the first valid one')
  t.match(await client.ask({ type: 'message', data: [{ name: 'visits', value: 5 }] }), { ok: false, error: { code: 'FST_ROOMS_FORBIDDEN' } }, 'members may not publish here')
})

t.test('the example server: /quote asks an HTTP route from inside the message handler and tells the room', async t => {
  await post(`${url}/dailyDashBoard`, [{ name: 'response ms', value: 41 }, { name: 'response ms', value: 42 }])
  const [teal, ruby] = await Promise.all([enter(t, host, 'market', 'Teal'), enter(t, host, 'market', 'Ruby')])

  const quote = teal.ask({ type: 'message', data: { text: '/quote response ms' } })
  t.match(await ruby.next('message'), { data: { name: 'quotes', text: 'response ms: 42' } })
  t.match(await quote, { ok: true })
  t.match(await teal.ask({ type: 'message', data: { text: '/quote nothing' } }), { ok: false, error: { code: 'NO_SUCH_QUOTE', message: 'there are no numbers for "nothing" yet' } })
  t.match(await teal.ask({ type: 'message', data: { text: '/dance' } }), { ok: false, error: { code: 'NO_SUCH_COMMAND' } })

  // Messages of one member stay in order although the first waits for an HTTP response.
  teal.send({ type: 'message', data: { text: '/quote response ms' } })
  teal.send({ type: 'message', data: { text: 'there you are' } })
  t.match(await ruby.next('message'), { data: { text: 'response ms: 42' } })
  t.match(await ruby.next('message'), { data: { text: 'there you are' } })
})

t.test('the example server: the page consists of plain files and loads nothing from other hosts', async t => {
  for (const [path, type] of [['/', 'text/html'], ['/style.css', 'text/css'], ['/app.js', 'javascript'], ['/assistant.js', 'javascript'], ['/fastify-rooms/client/index.js', 'javascript'], ['/fastify-rooms/protocol/close-codes.js', 'javascript'], ['/chart.js', 'javascript'], ['/status.js', 'javascript'], ['/icon.svg', 'image/svg']] as const) {
    const response = await fetch(url + path)
    t.equal(response.status, 200, path)
    t.match(response.headers.get('content-type'), type)
    t.equal(response.headers.get('content-security-policy'), "default-src 'self'")
    const text = (await response.text()).replaceAll('http://www.w3.org/2000/svg', '')
    t.notMatch(text, /https?:\/\/|innerHTML/, path)
  }
  for (const path of ['/fastify-rooms/plugin.js', '/fastify-rooms/index.js', '/fastify-rooms/client/..%2Fplugin.js', '/fastify-rooms/client/index.d.ts', '/server.ts']) {
    t.equal((await fetch(url + path)).status, 404, `${path} is not for pages`)
  }
})

/** Asserts that members, a listener and a raw member are told of the shutdown and that the process exits. */
async function goesInPeace (t: Test, example: Example, signal: NodeJS.Signals): Promise<void> {
  const { host, url, lines } = example
  const teal = await enter(t, host, 'lobby', 'Teal')
  const listener = await join(t, `${host}/dailyNews`)
  const raw = await connect(t, `${host}/dailyNews`, 'rooms.raw')
  // A connection without a request, such as browsers open in advance, must not delay the shutdown.
  const { hostname, port } = new URL(url)
  const spare = connectTcp(Number(port), hostname)
  t.teardown(() => { spare.destroy() })
  await once(spare, 'connect')

  const stopped = example.stop(signal)
  for (const client of [teal, listener]) t.match(await client.next('bye'), { code: 1001, reason: 'going_away', retry: { min: Number, max: Number } })
  for (const client of [teal, listener, raw]) t.equal((await client.closed).code, 1001)
  t.same(await stopped, { code: 0, signal: null })
  t.same(lines, [url], 'the process printed only its URL')
}

t.test('the example server: listens on PORT; on SIGTERM each client gets bye and 1001, and the exit code is 0', { skip: withoutSignals }, async t => {
  const port = await freePort()
  const example = await startExample(t, 'example/server.ts', { PORT: String(port) })
  t.equal(example.url, `http://127.0.0.1:${port}`)
  await goesInPeace(t, example, 'SIGTERM')
})

t.test('the example server: listens on HOST; on SIGINT each client gets bye and 1001, and the exit code is 0', { skip: withoutSignals }, async t => {
  // Only Linux has all of 127.0.0.0/8.
  const HOST = process.platform === 'linux' ? '127.0.0.2' : '127.0.0.1'
  const example = await startExample(t, 'example/server.ts', { HOST })
  t.equal(new URL(example.url).hostname, HOST)
  if (HOST === '127.0.0.2') await t.rejects(fetch(example.url.replace(HOST, '127.0.0.1')), 'the server does not listen on other addresses')
  const teal = await enter(t, example.host, 'lobby', 'Teal')
  t.match(await teal.ask({ type: 'message', data: { text: '/quote nothing' } }), { error: { code: 'NO_SUCH_QUOTE' } }, 'the server reaches its own routes on HOST')
  await goesInPeace(t, example, 'SIGINT')
})

t.test('the minimal example: a posted order reaches the room, and every member may send messages', async t => {
  const { url, host } = await startExample(t, 'example/small/minimal.ts')
  const client = await join(t, `${host}/rooms/orders`)
  const response = await post(`${url}/orders`, { item: 'tea' })
  t.equal(response.status, 201)
  t.match((await client.next('message')).data, { item: 'tea', at: String })

  client.send({ type: 'message', data: ['any', 'JSON'] })
  t.same((await client.next('message')).data, ['any', 'JSON'])
  t.equal((await post(`${url}/rooms/orders`, 7)).status, 200)
  t.equal((await client.next('message')).data, 7)
})

t.test('the auth example: a token admits a member, only an editor broadcasts, other requests are refused', async t => {
  const { url, host } = await startExample(t, 'example/small/auth.ts')
  t.match(await refused(`${host}/rooms/news`), { status: 401, body: { code: 'UNAUTHORIZED' } })
  t.match(await refused(`${host}/rooms/news?token=guess`), { status: 401 })
  t.match(await refused(`${host}/rooms/news`, ['rooms.v1', 'bearer.guess']), { status: 401 })
  t.match(await refused(`${host}/rooms/editor?token=reader-token`), { status: 403, body: { code: 'FST_ROOMS_FORBIDDEN' } })

  const bearer = `bearer.${Buffer.from('reader-token').toString('base64url')}`
  const members = [
    await connect(t, `${host}/rooms/news?token=reader-token`),
    await connect(t, `${host}/rooms/news`, ['rooms.v1', bearer]),
    await connect(t, `${host}/rooms/news`, [], { headers: { authorization: 'Bearer reader-token' } })
  ]
  t.equal(members[1]!.socket.protocol, 'rooms.v1', 'the answer does not contain the token')
  for (const member of members) await member.next('hello')
  t.match(await members[0]!.ask({ type: 'message', data: 'me, too' }), { ok: false, error: { code: 'FST_ROOMS_FORBIDDEN' } })

  t.equal((await post(`${url}/rooms/news`, 'no')).status, 401)
  const broadcast = (token: string) => fetch(`${url}/rooms/news`, { method: 'POST', headers: { ...headers, authorization: `Bearer ${token}` }, body: '"hello"' })
  t.equal((await broadcast('reader-token')).status, 403)
  t.equal((await broadcast('editor-token')).status, 200)
  for (const member of members) t.equal((await member.next('message')).data, 'hello', 'the first message is from the editor')

  const own = await join(t, `${host}/rooms/reader?token=reader-token`)
  t.match(await own.ask({ type: 'message', data: 'a note' }), { ok: true }, 'a user may join only a topic of its own')
})

t.test('the streams example: a loop over the messages of a member, and a pipeline', async t => {
  const { host } = await startExample(t, 'example/small/streams.ts')
  const sum = await join(t, `${host}/rooms/sum`)
  for (const data of [2, 'what', 3, 'done']) sum.send({ type: 'message', data })
  t.match(await sum.next('direct'), { data: 2 })
  t.match(await sum.next('direct'), { data: 5 })
  t.match(await sum.next('bye'), { code: 1000 })
  t.equal((await sum.closed).code, 1000)

  const [one, two] = await Promise.all([join(t, `${host}/rooms/shout`), join(t, `${host}/rooms/shout`)])
  for (const data of ['hello', 7, 'again']) one.send({ type: 'message', data })
  t.match(await one.next('direct'), { data: 'HELLO' })
  t.match(await one.next('direct'), { data: 'AGAIN' })
  two.send({ type: 'message', data: 'mine' })
  t.match(await two.next('direct'), { data: 'MINE' }, 'each member has a pipeline of its own')
  await one.close()
  two.send({ type: 'message', data: 'still here' })
  t.match(await two.next('direct'), { data: 'STILL HERE' }, 'a member that leaves ends only its own pipeline')
})

t.test('the stream example: an answer goes on without its reader, is read on after a reload, and can be stopped', async t => {
  const { url, host } = await startExample(t, 'example/small/ai-stream.ts')
  const ask = async (prompt: string): Promise<string> => (await (await post(`${url}/chat`, { prompt })).json() as { topic: string }).topic
  const textOf = (client: Client): string => client.received.map(text => JSON.parse(text)).filter(({ type }) => type === 'message').map(({ data }) => data).join('')

  const topic = await ask('tea')
  const first = await join(t, `${host}/rooms/${topic}`)
  let { id } = await first.next('message')
  while (textOf(first).length < 200) ({ id } = await first.next('message'))
  const before = textOf(first)
  await first.close()
  const second = await join(t, `${host}/rooms/${topic}?since=${id}`)
  t.match(second.hello, { recovered: true })
  t.match(await second.next('end'), { reason: 'done' })
  t.equal((await second.closed).code, 1000)
  const whole = `You asked about tea. ${'So much can be said about it, '.repeat(20)}and that is all.`
  t.equal(before + textOf(second), whole)
  const late = await join(t, `${host}/rooms/${topic}`)
  await late.closed
  t.equal(textOf(late), whole, 'a reader that comes after the end gets all of it')
  const snapshot = await (await fetch(`${url}/rooms/${topic}?limit=1000`)).json() as { messages: { data: string }[] }
  t.match(snapshot, { complete: true, ended: { reason: 'done' } })
  t.equal(snapshot.messages.map(({ data }) => data).join(''), whole)

  const other = await ask('milk')
  const reader = await join(t, `${host}/rooms/${other}`)
  await reader.next('message')
  t.same(await (await post(`${url}/chat/${other}/stop`, {})).json(), { stopped: true })
  t.match(await reader.next('end'), { reason: 'stopped' })
  t.same(await (await post(`${url}/chat/${other}/stop`, {})).json(), { stopped: false })
  t.match(await (await fetch(url)).text(), 'new WebSocket')
})

t.test('the raw example: a frame is the payload only', async t => {
  const { host } = await startExample(t, 'example/small/raw.ts')
  const clock = await connect(t, `${host}/rooms/clock`, 'rooms.raw')
  t.match(await clock.text(), /^\d{4}-\d\d-\d\dT[\d:.]+Z$/)

  const echo = await connect(t, `${host}/rooms/echo`, 'rooms.raw')
  const other = await join(t, `${host}/rooms/echo`)
  for (const text of ['{"any":["JSON",1]}', 'text that is no JSON', '7']) {
    echo.send(text)
    t.equal(await echo.text(), text)
  }
  t.match(await other.ask({ type: 'message', data: 'enveloped' }), { ok: true })
  t.notOk(other.received.some(frame => frame.includes('JSON')), 'an echo reaches its sender only')
  t.ok(other.received.some(frame => frame.includes('enveloped')), 'a rooms.v1 client gets the echo in a frame')
})
