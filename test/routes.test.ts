import { connect as connectTcp } from 'node:net'
import { once } from 'node:events'
import fastifySwagger from '@fastify/swagger'
import { Type } from '@sinclair/typebox'
import t, { type Test } from 'tap'
import fastifyRooms from '../lib/index.ts'
import { connect, createApp, createRooms, join, listen, refused, until } from './helpers/app.ts'

const plugin = fastifyRooms as any
const authorize = () => true

const Statistic = Type.Object({ name: Type.String(), value: Type.Number() })

/** Sends a request line unchanged, because clients would normalize the path. Returns the status. */
async function rawStatus (t: Test, url: string, path: string, upgrade = false): Promise<number> {
  const [host, port] = url.split(':')
  const socket = connectTcp({ host: host!, port: Number(port) })
  t.teardown(() => { socket.destroy() })
  let text = ''
  socket.on('data', chunk => { text += chunk.toString('latin1') })
  await once(socket, 'connect')
  const headers = upgrade ? 'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n' : 'Connection: close\r\n'
  socket.write(`GET ${path} HTTP/1.1\r\nHost: ${url}\r\n${headers}\r\n`)
  await until(() => /^HTTP\/1\.1 \d{3}/.test(text))
  return Number(text.slice(9, 12))
}

t.test('without options there are GET /:topic, POST /:topic and app.rooms: an open lobby', async t => {
  const app = createApp(t)
  await app.register(plugin)
  const url = await listen(app)
  const one = await join(t, `${url}/anything`)
  const two = await join(t, `${url}/anything`)
  t.match(await one.next('presence'), { count: 1 }, 'presence is announced')
  t.match(await one.ask({ type: 'message', data: { any: ['json', null] } }), { ok: true }, 'members may publish')
  t.match(await two.next('message'), { data: { any: ['json', null] }, from: one.hello.session })

  for (const payload of ['text', 0, false, null, [], { a: 1 }]) {
    const response = await app.inject({ method: 'POST', url: '/anything', headers: { 'content-type': 'application/json' }, payload: JSON.stringify(payload) })
    t.equal(response.statusCode, 200)
    t.match(response.json(), { topic: 'anything', local: 2, published: true })
    const message = await two.next('message')
    t.same(message.data, payload)
    t.equal(response.json().id, message.id)
  }
  t.equal(app.rooms.has('anything'), true)
})

t.test('a GET that asks for another protocol answers 426 with an Upgrade header and Fastify\'s JSON body', async t => {
  const app = await createRooms(t, { topics: { news: {}, 'chat:*': {} } })
  for (const url of ['/rooms/news', '/rooms/chat:lobby', '/rooms/chat%3Alobby']) {
    const response = await app.inject({ url, headers: { upgrade: 'foo' } })
    t.equal(response.statusCode, 426)
    t.match(response.headers, { upgrade: 'websocket', connection: /upgrade/i })
    t.same(response.json(), { statusCode: 426, code: 'FST_ROOMS_UPGRADE_REQUIRED', error: 'Upgrade Required', message: 'this URL is upgraded to a WebSocket, and to no other protocol' })
  }
})

t.test('HEAD of a topic is 404, and the plugin has no routes for other methods', async t => {
  const app = await createRooms(t)
  for (const method of ['HEAD', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const) t.equal((await app.inject({ method, url: '/rooms/news' })).statusCode, 404, method)
})

t.test('a prefix works with and without a slash at its end, with several segments, and empty', async t => {
  for (const [prefix, path] of [['/rooms', '/rooms/news'], ['/rooms/', '/rooms/news'], ['/a/b.c', '/a/b.c/news'], ['/', '/news'], ['', '/news']] as const) {
    const app = createApp(t)
    await app.register(plugin, { prefix })
    t.equal((await app.inject(path)).statusCode, 200, `${prefix} → ${path}`)
    t.equal((await app.inject({ method: 'POST', url: path, payload: {} })).statusCode, 200)
    t.equal((await app.inject(`/rooms/rooms${path}`)).statusCode, 404)
  }
})

t.test('a topic name is made of letters, digits and _ . : ~ -, or is refused before anything is created', async t => {
  const app = await createRooms(t)
  const url = await listen(app)
  const good = ['a', '0', 'A-Z_a-z.0~9:x', 'chat:42', '~', '-', '_', '...', 'x'.repeat(100)]
  for (const topic of good) {
    const client = await join(t, `${url}/rooms/${topic}`)
    t.equal(client.hello.topic, topic)
    await client.close()
  }
  await until(() => app.rooms.stats().topics === 0)
  const bad = ['a%20b', 'a%2Fb', '%00', 'caf%C3%A9', 'a%25b', 'a+b', 'a@b', 'a%2Ab', 'a!b', '%F0%9F%98%80', 'a,b', 'a%3Cb']
  for (const topic of bad) {
    t.equal((await app.inject(`/rooms/${topic}`)).statusCode, 400, `GET ${topic}`)
    t.match(await refused(`${url}/rooms/${topic}`), { status: 400, body: { code: 'FST_ERR_VALIDATION', statusCode: 400 } }, `upgrade ${topic}`)
    t.equal((await app.inject({ method: 'POST', url: `/rooms/${topic}`, payload: {} })).statusCode, 400, `POST ${topic}`)
  }
  for (const topic of ['.', '..', '%2e', '%2E%2e', '']) {
    for (const upgrade of [false, true]) t.match(String(await rawStatus(t, url, `/rooms/${topic}`, upgrade)), /40[04]/, `a segment that clients remove: "${topic}"`)
  }
  t.equal((await app.inject('/rooms/a/b')).statusCode, 404)
  t.match(app.rooms.stats(), { topics: 0, members: 0, broadcasts: 0 })
})

t.test('Fastify\'s own maxParamLength limits a name first: 100 characters, then 414', async t => {
  const app = await createRooms(t)
  const url = await listen(app)
  const long = 'x'.repeat(101)
  t.equal((await app.inject(`/rooms/${'x'.repeat(100)}`)).statusCode, 200)
  t.match((await app.inject(`/rooms/${long}`)).json(), { statusCode: 414, code: 'FST_ERR_MAX_PARAM_LENGTH' })
  t.equal((await app.inject({ method: 'POST', url: `/rooms/${long}`, payload: {} })).statusCode, 414)
  t.match(await refused(`${url}/rooms/${long}`), { status: 414 })
  t.match(app.rooms.stats(), { topics: 0, broadcasts: 0 })
})

t.test('if the host raises maxParamLength, a name has up to 255 characters, then 400', async t => {
  const app = createApp(t, { routerOptions: { maxParamLength: 1_000 } })
  await app.register(async scope => { await scope.register(plugin, { prefix: '/open' }) })
  await app.register(async scope => { await scope.register(plugin, { prefix: '/closed', topics: { 'chat:*': { post: true } }, authorize }) })
  const url = await listen(app)
  for (const path of [`/open/${'x'.repeat(255)}`, `/closed/chat:${'x'.repeat(250)}`]) {
    const client = await join(t, url + path)
    t.equal(client.hello.topic.length, 255)
    t.match((await app.inject({ method: 'POST', url: path, payload: {} })).json(), { local: 1 })
    for (const answer of [await refused(`${url}${path}x`), { status: 400, body: (await app.inject({ method: 'POST', url: `${path}x`, payload: {} })).json() }]) {
      t.match(answer, { status: 400, body: { statusCode: 400, code: 'FST_ERR_VALIDATION' } })
    }
  }
})

t.test('__proto__, constructor and toString are ordinary names in the open lobby', async t => {
  const app = await createRooms(t)
  const url = await listen(app)
  for (const topic of ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'prototype']) {
    const client = await join(t, `${url}/rooms/${topic}?presence=1`)
    t.equal(client.hello.topic, topic)
    t.match(await client.next('presence'), { count: 1, state: [{ session: client.hello.session }] })
    t.match(await app.rooms.broadcast(topic, 1), { topic, local: 1 })
    t.match(await client.next('message'), { data: 1 })
    t.match((await app.inject({ method: 'POST', url: `/rooms/${topic}`, payload: { n: 2 } })).json(), { topic, local: 1 })
    t.match(await client.next('message'), { data: { n: 2 } })
    t.match(await client.ask({ type: 'message', data: 3 }), { ok: true })
    t.equal(await app.rooms.count(topic), 1)
    t.match(await app.rooms.members(topic), [{ session: client.hello.session }])
    t.ok((await app.rooms.topics()).includes(topic))
  }
  t.equal(({} as Record<string, unknown>).session, undefined)
})

t.test('__proto__, constructor and toString are ordinary names if declared, and unknown otherwise', async t => {
  const names = ['__proto__', 'constructor', 'toString']
  const handled: string[] = []
  const topics = Object.fromEntries(names.map(name => [name, { message: Statistic, publish: Type.String(), presence: true as const, post: true as const }]))
  const onMessage = Object.fromEntries(names.map(name => [name, (session: any, text: string) => {
    handled.push(session.key)
    return session.rooms.broadcast(session.topic, { name: text, value: 1 })
  }]))
  const app = await createRooms(t, { topics, onMessage, authorize })
  const url = await listen(app)
  for (const topic of names) {
    const client = await join(t, `${url}/rooms/${topic}?presence=1`)
    t.match(await client.next('presence'), { count: 1 })
    t.match(await client.ask({ type: 'message', data: 'hi' }), { ok: true })
    t.match(await app.rooms.broadcast(topic, { name: 'a', value: 1 }), { topic, local: 1 })
    t.equal((await app.inject({ method: 'POST', url: `/rooms/${topic}`, payload: { name: 1 } })).statusCode, 400)
  }
  t.same(handled, names)

  const other = await createRooms(t, { topics: { news: { post: true } }, authorize })
  for (const topic of names) {
    t.equal((await other.inject(`/rooms/${topic}`)).statusCode, 404)
    t.equal((await other.inject({ method: 'POST', url: `/rooms/${topic}`, payload: {} })).statusCode, 404)
    t.equal(other.rooms.has(topic), false)
    await t.rejects(other.rooms.broadcast(topic, 1), { code: 'FST_ROOMS_NO_SUCH_TOPIC' })
  }
})

t.test('a colon may be percent-encoded, in either case of its hex digits', async t => {
  const app = await createRooms(t, { topics: { 'a:b': { post: true }, 'chat:*': { post: true } }, authorize })
  await app.register(async scope => { scope.get('/other', async () => 'other') })
  const url = await listen(app)
  for (const [spelling, topic] of [['a:b', 'a:b'], ['a%3Ab', 'a:b'], ['a%3ab', 'a:b'], ['chat:x', 'chat:x'], ['chat%3Ax', 'chat:x'], ['chat%3ax', 'chat:x'], ['chat%3Ax%3Ay', 'chat:x:y'], ['%63hat:%78', 'chat:x']]) {
    const client = await join(t, `${url}/rooms/${spelling}`)
    t.equal(client.hello.topic, topic, `${spelling} is ${topic}`)
    const response = await app.inject({ method: 'POST', url: `/rooms/${spelling}`, payload: { spelling } })
    t.match(response.json(), { topic, local: 1 })
    t.match(await client.next('message'), { data: { spelling } })
    await client.close()
    await until(async () => await app.rooms.count(topic!) === 0)
  }
})

t.test('a dot in a name matches only a dot, with a percent-encoded colon or not', async t => {
  const app = await createRooms(t, { topics: { 'v1.0:a': { post: true }, 'v2.0:*': { post: true } }, authorize })
  for (const [path, status] of [['v1.0%3Aa', 200], ['v1.0:a', 200], ['v1x0%3Aa', 404], ['v2.0%3Aa', 200], ['v2x0%3Aa', 404], ['v2.0%3A', 404]] as const) {
    t.equal((await app.inject(`/rooms/${path}`)).statusCode, status, path)
  }
})

t.test('many topics with colons are routed separately, exact names and families, in both spellings', async t => {
  const exact = ['a:b', 'a:c', 'x:b', 'a:b:c', 'a-b:c', 'a.b:c', ':', 'end:', ':start']
  const families = ['chat:*', 'chit:*', 'deep:er:*', 'do.t:*', 'da-sh:*']
  const app = await createRooms(t, { topics: Object.fromEntries([...exact, ...families].map(name => [name, { post: true as const }])), authorize })
  for (const topic of [...exact, ...families.map(family => family.replace('*', 'x:y.z'))]) {
    for (const spelling of [topic, encodeURIComponent(topic), topic.replaceAll(':', '%3a')]) {
      t.equal((await app.inject(`/rooms/${spelling}`)).statusCode, 200, spelling)
      t.match((await app.inject({ method: 'POST', url: `/rooms/${spelling}`, payload: {} })).json(), { topic }, spelling)
    }
  }
  for (const topic of ['a:d', 'a:b:', 'xa:b', 'chat:', 'deep:x', 'do-t:x']) {
    for (const spelling of [topic, encodeURIComponent(topic)]) t.notOk((await app.inject({ method: 'POST', url: `/rooms/${spelling}`, payload: {} })).statusCode < 400, spelling)
  }
})

t.test('Fastify\'s maxParamLength limits the rest behind a percent-encoded colon like any parameter', async t => {
  const app = await createRooms(t, { topics: { 'chat:*': {} } })
  t.equal((await app.inject(`/rooms/chat%3A${'x'.repeat(100)}`)).statusCode, 200)
  for (const topic of [`chat:${'x'.repeat(101)}`, `chat%3A${'x'.repeat(101)}`, `chat%3A${'x'.repeat(1_000)}`]) t.equal((await app.inject(`/rooms/${topic}`)).statusCode, 414, topic.slice(0, 8))
})

t.test('a percent-encoded colon names the same topic in the open lobby', async t => {
  const app = await createRooms(t)
  const url = await listen(app)
  t.equal((await join(t, `${url}/rooms/chat%3Alobby`)).hello.topic, 'chat:lobby')
  t.equal((await join(t, `${url}/rooms/chat:lob%62y`)).hello.topic, 'chat:lobby')
  t.equal(await app.rooms.count('chat:lobby'), 2)
})

t.test('a literal route matches literally: /chatXYZ is not in chat:*, nor is the prefix of the family alone', async t => {
  const app = await createRooms(t, { topics: { 'chat:*': { post: true }, 'a:b': { post: true } }, authorize })
  const url = await listen(app)
  for (const topic of ['chatXYZ', 'chat', 'chat:', 'chat%3A', 'chatXlobby', 'Chat:lobby', 'aXb', 'a', 'ab', 'a:bc', 'news', ':topic']) {
    for (const status of [(await app.inject(`/rooms/${topic}`)).statusCode, (await app.inject({ method: 'POST', url: `/rooms/${topic}`, payload: {} })).statusCode, (await refused(`${url}/rooms/${topic}`)).status]) {
      t.ok(status === 404 || (status === 400 && /^chat(:|%3A)$/.test(topic)), `${topic} → ${status}`)
    }
  }
  t.match(app.rooms.stats(), { topics: 0, broadcasts: 0 })
})

t.test('an exact name beats a family, and spellings of an exact name that only the route of the family matches are 404', async t => {
  const app = await createRooms(t, {
    topics: { 'chat:*': { message: Type.String(), publish: true, post: true }, 'chat:a:b': { message: Statistic } },
    authorize
  })
  const url = await listen(app)
  const exact = await join(t, `${url}/rooms/chat:a:b`)
  t.match(await exact.ask({ type: 'message', data: 'text' }), { ok: false, error: { code: 'FST_ROOMS_FORBIDDEN' } }, 'members may not publish to the exact topic')
  for (const spelling of ['chat:a%3Ab', 'chat:%61%3ab']) {
    t.match((await app.inject(`/rooms/${spelling}`)).json(), { statusCode: 404, code: 'FST_ROOMS_NO_SUCH_TOPIC', message: /"chat:a:b"/ }, spelling)
    t.match(await refused(`${url}/rooms/${spelling}`), { status: 404, body: { code: 'FST_ROOMS_NO_SUCH_TOPIC' } })
    t.match((await app.inject({ method: 'POST', url: `/rooms/${spelling}`, headers: { 'content-type': 'application/json' }, payload: '"past the schema"' })).json(), { statusCode: 404, code: 'FST_ROOMS_NO_SUCH_TOPIC' })
  }
  for (const spelling of ['chat:%61:b', 'chat%3Aa%3Ab', 'chat%3Aa:b', 'chat%3a%61%3ab']) {
    const member = await join(t, `${url}/rooms/${spelling}`)
    t.equal(member.hello.topic, 'chat:a:b', `${spelling} is the exact topic`)
    t.match(await member.ask({ type: 'message', data: 'text' }), { ok: false, error: { code: 'FST_ROOMS_FORBIDDEN' } })
    t.equal((await app.inject({ method: 'POST', url: `/rooms/${spelling}`, headers: { 'content-type': 'application/json' }, payload: '"past the schema"' })).statusCode, 404)
  }
  for (const spelling of ['chat:a:bc', 'chat%3Aa%3Abc', 'chat%3Aa', 'chat%3Aa%3A']) {
    t.equal((await app.inject({ method: 'POST', url: `/rooms/${spelling}`, headers: { 'content-type': 'application/json' }, payload: '"text"' })).statusCode, 200, `${spelling} belongs to the family`)
  }
  await app.rooms.broadcast('chat:a:b', { name: 'a', value: 1 })
  t.match(await exact.next('message'), { data: { name: 'a', value: 1 } }, 'the exact topic got no earlier message')
})

t.test('an undeclared topic does not exist: 404 on GET, POST and upgrade', async t => {
  const app = await createRooms(t, { topics: { news: { post: true } }, authorize })
  const url = await listen(app)
  t.equal((await app.inject('/rooms/weather')).statusCode, 404)
  t.equal((await app.inject({ method: 'POST', url: '/rooms/weather', payload: {} })).statusCode, 404)
  t.match(await refused(`${url}/rooms/weather`), { status: 404, body: { statusCode: 404, error: 'Not Found' } })
  t.equal(app.rooms.has('weather'), false)
  await t.rejects(app.rooms.broadcast('weather', {}), { code: 'FST_ROOMS_NO_SUCH_TOPIC' })
})

t.test('a broadcast route exists only if the topic declares it', async t => {
  const app = await createRooms(t, {
    topics: { silent: {}, own: { post: true }, dailyNews: { message: Type.Array(Statistic), post: '/dailyDashBoard' }, root: { post: '/' } },
    authorize
  })
  const url = await listen(app)
  const post = async (path: string, payload: unknown = []) => (await app.inject({ method: 'POST', url: path, headers: { 'content-type': 'application/json' }, payload: JSON.stringify(payload) }))
  t.equal((await post('/rooms/silent')).statusCode, 404)
  t.equal((await app.inject('/rooms/silent')).statusCode, 200, 'a topic without a broadcast route can be read')
  t.equal((await post('/rooms/own')).statusCode, 200)
  t.equal((await post('/rooms/dailyNews')).statusCode, 404, 'a custom path replaces the default')
  t.equal((await post('/dailyDashBoard')).statusCode, 404, 'the prefix applies to a custom path')
  t.match((await post('/rooms/')).json(), { topic: 'root' })

  const client = await join(t, `${url}/rooms/dailyNews`)
  t.match((await post('/rooms/dailyDashBoard', [{ name: 'visits', value: 3 }])).json(), { topic: 'dailyNews', local: 1, published: true })
  t.match(await client.next('message'), { data: [{ name: 'visits', value: 3 }] })
})

t.test('an invalid body gets Fastify\'s 400, and is delivered to no member', async t => {
  const app = await createRooms(t, { topics: { news: { message: Statistic, post: true }, 'stats:*': { message: Statistic, post: true } }, authorize })
  const url = await listen(app)
  for (const topic of ['news', 'stats:a']) {
    const client = await join(t, `${url}/rooms/${topic}`)
    const post = async (payload: unknown) => app.inject({ method: 'POST', url: `/rooms/${topic}`, headers: { 'content-type': 'application/json' }, payload: JSON.stringify(payload) })
    const invalid: [unknown, RegExp][] = [
      [{ name: 'a' }, /must have required property 'value'/],
      [{ name: 'a', value: '3' }, /value must be number/],
      [{ name: 'a', value: 3, more: 1 }, /must NOT have additional properties/],
      [[], /must be object/], ['text', /must be object/], [null, /must be object/], [0, /must be object/], [false, /must be object/]
    ]
    for (const [payload, message] of invalid) {
      const response = await post(payload)
      t.equal(response.statusCode, 400)
      t.match(response.json(), { statusCode: 400, code: 'FST_ERR_VALIDATION', error: 'Bad Request', message })
    }
    t.equal((await post({ name: 'b', value: 1 })).statusCode, 200)
    t.match(await client.next('message'), { data: { name: 'b', value: 1 } }, 'the first delivered message is the valid one')
  }
  t.equal(app.rooms.stats().broadcasts, 2)
})

t.test('socket, broadcast route and code refuse the same payloads, and change none', async t => {
  const Strict = Type.Object({ n: Type.Integer({ default: 7 }), s: Type.Optional(Type.String({ default: 'filled in' })) })
  const app = await createRooms(t, { topics: { news: { message: Strict, publish: true, post: true } }, authorize })
  const url = await listen(app)
  const client = await join(t, `${url}/rooms/news`)
  for (const payload of [{}, { n: '1' }, { n: 1.5 }, { n: 1, x: 1 }, { n: null }, [{ n: 1 }]]) {
    await t.rejects(app.rooms.broadcast('news', payload), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
    t.equal((await app.inject({ method: 'POST', url: '/rooms/news', payload })).statusCode, 400)
    t.match(await client.ask({ type: 'message', data: payload }), { ok: false, error: { code: 'FST_ROOMS_INVALID_PAYLOAD' } })
  }
  t.equal(app.rooms.stats().deliveries, 0)
  await app.rooms.broadcast('news', { n: 1 })
  await app.inject({ method: 'POST', url: '/rooms/news', payload: { n: 2 } })
  client.send({ type: 'message', data: { n: 3 } })
  for (const n of [1, 2, 3]) t.same((await client.next('message')).data, { n }, 'no default was filled in')
})

t.test('a request without a body is 400, with or without a content type, for any schema', async t => {
  const app = await createRooms(t, { topics: { any: { post: true }, nothing: { message: Type.Null(), post: true } }, authorize })
  for (const topic of ['any', 'nothing']) {
    t.match((await app.inject({ method: 'POST', url: `/rooms/${topic}` })).json(), { statusCode: 400, code: 'FST_ROOMS_BODY_MISSING' })
    t.match((await app.inject({ method: 'POST', url: `/rooms/${topic}`, headers: { 'content-type': 'application/json' } })).json(), { statusCode: 400 })
    t.equal((await app.inject({ method: 'POST', url: `/rooms/${topic}`, headers: { 'content-type': 'application/json' }, payload: 'null' })).statusCode, 200)
  }
  t.equal(app.rooms.stats().broadcasts, 2)
})

t.test('no spelling of the content type gets a body past the schema', async t => {
  const app = await createRooms(t, { topics: { news: { message: Statistic, post: true } }, authorize })
  const url = await listen(app)
  const client = await join(t, `${url}/rooms/news`)
  const json = ['application/json', 'APPLICATION/JSON', 'Application/Json; charset=utf-8', 'application/json;charset=utf-8', 'application/json ;charset=utf-8', 'application/json; charset="utf-8"', ' application/json ']
  const other = [
    '', ' ', ';', 'json', 'text/plain', 'text/json', 'text/plain;application/json', 'text/plain, application/json', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x',
    'application/jsonx', 'application/json,text/plain', 'application/json\ttext/plain', 'application/json text/plain', 'application/json\t', 'application/ json', 'application /json', 'application/json\\',
    'application/vnd.api+json', 'application/problem+json', 'application/ld+json', 'application/octet-stream', '*/*', 'application/*', 'text/html; foo=application/json', 'application/json%00', '\tapplication/json', 'application/json;;', '/'
  ]
  const post = async (type: string, payload: unknown) => app.inject({ method: 'POST', url: '/rooms/news', headers: { 'content-type': type }, payload: JSON.stringify(payload) })
  for (const type of [...json, ...other]) {
    const { statusCode } = await post(type, { name: 'no value' })
    t.ok(statusCode === 400 || statusCode === 415, `${JSON.stringify(type)} → ${statusCode}`)
  }
  t.equal(app.rooms.stats().broadcasts, 0)
  for (const type of other.slice(4, 13)) t.equal((await post(type, { name: 'a', value: 1 })).statusCode, 415, `a valid body as ${type}`)
  t.equal(app.rooms.stats().broadcasts, 0)
  for (const [index, type] of json.entries()) {
    t.equal((await post(type, { name: type, value: index })).statusCode, 200, type)
    t.match(await client.next('message'), { data: { name: type, value: index } })
  }
})

t.test('a cross-site simple request is not JSON, and is refused in the open lobby as well', async t => {
  const app = await createRooms(t)
  for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x']) {
    t.match((await app.inject({ method: 'POST', url: '/rooms/news', headers: { 'content-type': type }, payload: '{"a":1}' })).json(), { statusCode: 415, code: 'FST_ERR_CTP_INVALID_MEDIA_TYPE' })
  }
  t.equal(app.rooms.stats().broadcasts, 0)
})

t.test('malformed and poisoned JSON is 400', async t => {
  const app = await createRooms(t)
  for (const payload of ['{', '{"a":}', 'undefined', '\'a\'', '[1,]', '{"__proto__":{"a":1}}', '{"a":[{"__proto__":1}]}', '{"constructor":{"prototype":{"a":1}}}']) {
    const response = await app.inject({ method: 'POST', url: '/rooms/news', headers: { 'content-type': 'application/json' }, payload })
    t.equal(response.statusCode, 400, payload)
  }
  t.equal(app.rooms.stats().broadcasts, 0)
})

t.test('a body over the limit is 413, with the limit of the topic or the general one', async t => {
  const app = await createRooms(t, { topics: { all: { post: true }, own: { post: true, limits: { payload: 50 } } }, limits: { payload: 100 }, authorize })
  const post = async (topic: string, length: number) => (await app.inject({ method: 'POST', url: `/rooms/${topic}`, headers: { 'content-type': 'application/json' }, payload: JSON.stringify('x'.repeat(length - 2)) })).statusCode
  t.equal(await post('all', 100), 200)
  t.equal(await post('all', 101), 413)
  t.equal(await post('own', 50), 200)
  t.equal(await post('own', 51), 413)
})

t.test('a malformed query is 400, for the upgrade and for a plain GET', async t => {
  const app = await createRooms(t, { topics: { news: {}, 'chat:*': {} } })
  const url = await listen(app)
  const epoch = 'a'.repeat(16)
  for (const topic of ['news', 'chat:x']) {
    for (const query of ['since=', 'since=x', 'since=1', 'since=-1', `since=${epoch}`, `since=${epoch}-`, `since=${epoch}-x`, `since=${epoch}-${'9'.repeat(16)}`, `since=${epoch}-1&since=${epoch}-2`, 'since=latest&since=0',
      'since=LATEST', 'presence=', 'presence=2', 'presence=true', 'presence=1&presence=1', 'since=0%00']) {
      t.match((await app.inject(`/rooms/${topic}?${query}`)).json(), { statusCode: 400, code: 'FST_ERR_VALIDATION' }, query)
      t.match(await refused(`${url}/rooms/${topic}?${query}`), { status: 400, body: { code: 'FST_ERR_VALIDATION' } })
    }
    for (const query of ['since=0', 'since=latest', `since=${epoch}-0`, 'presence=0', 'presence=1', 'token=a&token=b', 'since[a]=0']) {
      t.equal((await app.inject(`/rooms/${topic}?${query}`)).statusCode, 200, query)
    }
  }
  t.equal(app.rooms.stats().connections, 0)
})

t.test('the join gets since and presence', async t => {
  const app = await createRooms(t)
  const url = await listen(app)
  const first = await join(t, `${url}/rooms/news`)
  t.notOk('recovered' in first.hello)
  const again = await connect(t, `${url}/rooms/news?since=${first.hello.id}&presence=1`)
  t.match(await again.next(), { type: 'hello', recovered: true, replayed: 0 })
  t.match(await again.next(), { type: 'presence', count: 2, state: [{}, {}] })
  const without = await connect(t, `${url}/rooms/news?since=0&presence=0`)
  const hello = await without.next('hello')
  t.equal(hello.replayed, 0)
  t.notOk('recovered' in hello)
  t.notOk('state' in await without.next('presence'), 'a difference without a snapshot')
})

t.test('@fastify/swagger shows each topic once, with its schemas', async t => {
  const app = createApp(t)
  await app.register(fastifySwagger, { openapi: { openapi: '3.0.3', info: { title: 'test', version: '1' } } })
  await app.register(plugin, {
    prefix: '/rooms',
    topics: { dailyNews: { message: Type.Array(Statistic), post: '/dailyDashBoard' }, 'a:b': { message: Type.String(), post: true }, 'chat:*': { message: Type.Object({ text: Type.String() }), post: true }, silent: {} },
    authorize
  })
  await app.ready()
  const { paths = {} } = app.swagger() as { paths?: Record<string, any> }
  t.same(Object.entries(paths).map(([path, methods]) => [path, ...Object.keys(methods).sort()]).sort(), [
    ['/rooms/a:b', 'get', 'post'], ['/rooms/chat:{topic}', 'get', 'post'], ['/rooms/dailyDashBoard', 'post'], ['/rooms/dailyNews', 'get'], ['/rooms/silent', 'get']
  ])

  const news = paths['/rooms/dailyDashBoard'].post
  t.equal(news.summary, 'Broadcast to dailyNews')
  const body = news.requestBody.content['application/json'].schema
  t.match(body, { type: 'array', items: { type: 'object', required: ['name', 'value'], properties: { name: { type: 'string' }, value: { type: 'number' } }, additionalProperties: false } })
  t.same(Object.keys(news.requestBody.content), ['application/json'])
  t.match(news.responses['200'].content['application/json'].schema, { type: 'object', required: ['topic', 'local', 'published'] })
  t.match(news.responses['200'].content['application/json'].schema.properties, { duplicate: { type: 'boolean' } })
  const header = { in: 'header', name: 'idempotency-key', required: false, description: /first response/, schema: { type: 'string' } }
  t.match(news.parameters, [header])
  t.equal(news.parameters.length, 1)

  const chat = paths['/rooms/chat:{topic}'].post
  t.equal(chat.summary, 'Broadcast to a topic of chat:*')
  t.match(chat.parameters, [{ in: 'path', name: 'topic', required: true, description: 'the part of the topic after chat:', schema: { type: 'string', minLength: 1, maxLength: 250 } }, header])
  t.match(chat.requestBody.content['application/json'].schema, { properties: { text: { type: 'string' } } })

  const read = paths['/rooms/chat:{topic}'].get
  t.equal(read.summary, 'Read a topic of chat:*, or join it with a WebSocket')
  t.same(read.parameters.map(({ in: where, name, schema }: any) => [where, name, schema.type]), [['query', 'since', 'string'], ['query', 'limit', 'integer'], ['query', 'wait', 'integer'], ['path', 'topic', 'string']])
  const answer = read.responses['200'].content['application/json'].schema
  t.match(answer, { type: 'object', required: ['topic', 'count', 'messages', 'complete'] })
  t.match(answer.properties.messages.items, { required: ['id', 'data'], properties: { data: { type: 'object', required: ['text'], properties: { text: { type: 'string' } } } } }, 'typed by the topic')
  t.match(paths['/rooms/dailyNews'].get.summary, 'Read dailyNews, or join it with a WebSocket')
  t.same(paths['/rooms/silent'].get.responses['200'].content['application/json'].schema.properties.messages.items.properties.data, {})
})

t.test('@fastify/swagger shows a topic whose schema has an $id, refers to itself, or to a schema of the host', async t => {
  const app = createApp(t)
  app.addSchema({ $id: 'statistic', type: 'object', required: ['value'], properties: { value: { type: 'number' } } })
  await app.register(fastifySwagger, { openapi: { openapi: '3.0.3', info: { title: 'test', version: '1' } } })
  await app.register(plugin, {
    prefix: '/rooms',
    topics: {
      shared: { message: { type: 'array', items: { $ref: 'statistic#' } }, post: true, history: true },
      local: { message: { type: 'array', items: { $ref: '#/definitions/one' }, definitions: { one: { type: 'number' } } }, post: true, history: true },
      named: { message: { $id: 'named', type: 'object', required: ['a'], properties: { a: { $ref: '#/definitions/one' } }, definitions: { one: { type: 'number' } } }, post: true, history: true }
    },
    authorize
  })
  await app.ready()
  const { paths = {} } = app.swagger() as { paths?: Record<string, any> }
  for (const topic of ['shared', 'local', 'named']) t.ok(paths[`/rooms/${topic}`].get.responses['200'].content['application/json'].schema.properties.messages, topic)
  for (const [topic, payload] of [['shared', [{ value: 1 }]], ['local', [1]], ['named', { a: 1 }]] as const) {
    t.equal((await app.inject({ method: 'POST', url: `/rooms/${topic}`, payload: payload as object })).statusCode, 200)
    t.match((await app.inject(`/rooms/${topic}`)).json(), { messages: [{ data: payload }] })
  }
})

t.test('@fastify/swagger shows POST and GET with the same schema, whose references lead to parts of the document, and the end of streams', async t => {
  const app = createApp(t)
  app.addSchema({ $id: 'statistic', type: 'object', required: ['value'], properties: { value: { type: 'number' } } })
  await app.register(fastifySwagger, { openapi: { openapi: '3.0.3', info: { title: 'test', version: '1' } } })
  const one = { type: 'number', minimum: 3 }
  await app.register(plugin, {
    prefix: '/rooms',
    topics: {
      shared: { message: { type: 'array', items: { $ref: 'statistic#' } }, post: true },
      local: { message: { type: 'array', items: { $ref: '#/definitions/one' }, definitions: { one } }, post: true },
      beside: { message: { type: 'object', properties: { a: { $ref: '#/$defs/one', maximum: 7 }, b: { $ref: '#/$defs/one', allOf: [{ maximum: 7 }] } }, $defs: { one } }, post: true },
      tree: { message: { $id: 'tree', type: 'object', properties: { kids: { type: 'array', items: { $ref: '#' } } } }, post: true },
      any: { post: true },
      'run:*': { message: Type.String(), stream: true, post: true }
    },
    authorize
  })
  await app.ready()
  const document = app.swagger() as { paths: Record<string, any>, components: { schemas: Record<string, { title: string }> } }
  const found = Object.fromEntries(Object.entries(document.paths).map(([path, { get, post }]) => {
    const answer = get.responses['200'].content['application/json'].schema.properties
    const data = answer.messages.items.properties.data
    t.same(post.requestBody.content['application/json'].schema, data, path)
    t.equal('ended' in answer, path.includes('run'), path)
    return [path.slice('/rooms/'.length), data]
  }))
  t.same(Object.values(document.components.schemas).map(({ title }) => title), ['statistic'])
  const shared = `#/components/schemas/${Object.keys(document.components.schemas)[0]}`
  t.same(found, {
    shared: { type: 'array', items: { $ref: shared } },
    local: { type: 'array', items: one },
    beside: { type: 'object', properties: { a: { maximum: 7, allOf: [one] }, b: { allOf: [{ maximum: 7 }, one] } }, additionalProperties: false },
    tree: { type: 'object', properties: { kids: { type: 'array', items: { description: 'the same schema again' } } }, additionalProperties: false },
    any: {},
    'run:{topic}': { type: 'string' }
  })
  t.equal((await app.inject({ method: 'POST', url: '/rooms/tree', payload: { kids: [{ kids: [{}] }] } })).statusCode, 200, 'validation knows the whole schema')
  t.equal((await app.inject({ method: 'POST', url: '/rooms/tree', payload: { kids: [{ kids: [{ more: 1 }] }] } })).statusCode, 400)
})

t.test('@fastify/swagger shows the routes of the open lobby', async t => {
  const app = createApp(t)
  await app.register(fastifySwagger, {})
  await app.register(plugin, { prefix: '/rooms' })
  await app.ready()
  const { paths = {} } = app.swagger() as { paths?: Record<string, any> }
  t.same(Object.keys(paths), ['/rooms/{topic}'])
  t.match(paths['/rooms/{topic}'].post.parameters, [{ in: 'body' }, { in: 'path', name: 'topic', description: 'the topic' }, { in: 'header', name: 'idempotency-key' }])
})

t.test('schemas may refer to schemas of the host (addSchema)', async t => {
  const app = createApp(t)
  app.addSchema({ $id: 'statistic', type: 'object', required: ['value'], properties: { value: { type: 'number' } } })
  await app.register(plugin, { prefix: '/rooms', topics: { news: { message: { type: 'array', items: { $ref: 'statistic#' } }, post: true } }, authorize })
  const post = async (payload: unknown[]) => (await app.inject({ method: 'POST', url: '/rooms/news', payload })).statusCode
  t.equal(await post([{ value: 1 }]), 200)
  t.equal(await post([{ value: '1' }]), 400)
  await t.rejects(app.rooms.broadcast('news', [{ value: '1' }]), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
})

t.test('a broadcast to a topic without members is accepted, with no receivers', async t => {
  const app = await createRooms(t)
  t.same((await app.inject({ method: 'POST', url: '/rooms/empty', payload: {} })).json(), { topic: 'empty', local: 0, published: true }, 'a topic without members has no position')
})
