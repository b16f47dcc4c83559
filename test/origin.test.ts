import { once } from 'node:events'
import { connect as dial } from 'node:net'
import type { FastifyInstance, FastifyRequest, FastifyServerOptions } from 'fastify'
import t, { type Test } from 'tap'
import fastifyRooms from '../lib/index.ts'
import { lastForwarded } from '../lib/routes/forwarded.ts'
import { createApp, createRooms, join, listen, refused, type AnyOptions, type LogLine } from './helpers/app.ts'

/** Asks whether headers may join; a broadcast must get the same answer. */
async function gate (t: Test, options: AnyOptions): Promise<(headers: Record<string, string>) => Promise<boolean>> {
  const app = await createRooms(t, options)
  return async headers => mayPass(t, app, headers)
}

async function mayPass (t: Test, app: FastifyInstance, headers: Record<string, string>): Promise<boolean> {
  const refusal = { statusCode: 403, code: 'FST_ROOMS_ORIGIN_REFUSED' }
  const get = await app.inject({ url: '/rooms/news', headers })
  const post = await app.inject({ method: 'POST', url: '/rooms/news', headers, payload: {} })
  const joined = await app.rooms.inject('/rooms/news', { headers }).then(async client => {
    await client.close()
    return true
  }, (error: Error) => {
    t.match(error, { code: 'FST_ROOMS_INJECT_REFUSED', message: /403/ })
    return false
  })
  if (!joined) {
    t.match(get.json(), refusal)
    t.match(post.json(), refusal)
  }
  t.equal(get.statusCode, joined ? 200 : 403, 'a plain GET of the same URL gets the same answer')
  t.equal(post.statusCode, joined ? 200 : 403, 'a broadcast gets the same answer')
  return joined
}

t.test('same origin is the default: host and port as a browser writes them', async t => {
  const table: [string, string, boolean][] = [
    ['http://rooms.example', 'rooms.example', true],
    ['http://rooms.example:8080', 'rooms.example:8080', true],
    ['http://rooms.example', 'rooms.example:80', true],
    ['http://rooms.example:80', 'rooms.example', true],
    ['https://rooms.example', 'rooms.example', true], // TLS ends before this server
    ['https://rooms.example', 'rooms.example:443', true],
    ['https://rooms.example:8443', 'rooms.example:8443', true],
    ['http://ROOMS.example', 'rooms.EXAMPLE', true],
    ['http://[::1]:3000', '[::1]:3000', true],
    ['http://[::1]', '[::1]:80', true],
    ['https://[2001:db8::1]', '[2001:DB8:0::1]:443', true],
    ['https://rooms.example.', 'rooms.example.', true],
    ['https://xn--mnchen-3ya.example', 'xn--mnchen-3ya.example', true],
    ['http://127.0.0.1:3000', '127.0.0.1:3000', true],
    ['http://rooms.example:8080', 'rooms.example', false],
    ['http://rooms.example', 'rooms.example:8080', false],
    ['https://rooms.example', 'rooms.example:80', false],
    ['http://evil.example', 'rooms.example', false],
    ['http://rooms.example.evil.example', 'rooms.example', false],
    ['http://evilrooms.example', 'rooms.example', false],
    ['http://sub.rooms.example', 'rooms.example', false],
    ['http://localhost:3000', '127.0.0.1:3000', false],
    ['null', 'rooms.example', false],
    ['null', 'null', false],
    ['rooms.example', 'rooms.example', false],
    ['', 'rooms.example', false],
    ['file://', 'rooms.example', false],
    ['not an origin', 'rooms.example', false],
    ['http://', 'rooms.example', false],
    ['http://rooms.example, http://evil.example', 'rooms.example', false],
    ['http://rooms.example,http://evil.example', 'rooms.example,http', false],
    ['http://[::1]:3000', '[::1]', false],
    ['http://[::1]', '[::2]', false],
    ['http://[::1', '[::1', false],
    ['https://rooms.example.', 'rooms.example', false], // another origin to a browser, too
    ['http://rooms.example/', 'rooms.example', false],
    ['http://rooms.example/path', 'rooms.example', false],
    ['http://rooms.example?x', 'rooms.example', false],
    ['http://evil.example@rooms.example', 'rooms.example', false],
    ['http://rooms.example\\@evil.example', 'rooms.example', false],
    ['http://rooms.example', 'evil.example@rooms.example', false],
    ['http://rooms.example', 'rooms.example/path', false],
    ['http://rooms.example', '', false],
    ['http://rooms.example:99999', 'rooms.example:99999', false],
    ['capacitor://rooms.example', 'rooms.example', false],
    ['ws://rooms.example', 'rooms.example', false]
  ]
  for (const options of [{}, { origin: 'same' as const }]) {
    const allows = await gate(t, options)
    for (const [origin, host, allowed] of table) t.equal(await allows({ origin, host }), allowed, `${JSON.stringify(origin)} at ${host}`)
  }
})

t.test('a real upgrade from another origin is refused, one from the same is not', async t => {
  const app = await createRooms(t)
  const url = await listen(app)
  t.match(await refused(`${url}/rooms/news`, [], { origin: 'http://evil.example' }), { status: 403, body: { code: 'FST_ROOMS_ORIGIN_REFUSED', message: 'this origin may not use the rooms' } })
  t.ok(await join(t, `${url}/rooms/news`, { origin: `http://${url}` }))
  t.ok(await join(t, `${url}/rooms/news`), 'a request without an Origin is not from a browser')
})

t.test('a request without an Origin passes each rule, because no browser sent it', async t => {
  for (const origin of ['same', 'any', [], ['http://a.example'], () => false] as const) t.equal(await (await gate(t, { origin: origin as never }))({}), true)
})

t.test('origin: any accepts each origin', async t => {
  const allows = await gate(t, { origin: 'any' })
  for (const origin of ['http://evil.example', 'null', 'nonsense']) t.equal(await allows({ origin }), true)
})

t.test('origin: a list accepts exact strings and matches of its RegExps, however often it is asked', async t => {
  const allows = await gate(t, { origin: ['http://a.example', /^https:\/\/\w+\.b\.example$/, /^http:\/\/g\.example/g, /^http:\/\/y\.example/y] })
  for (let round = 0; round < 3; round++) {
    for (const origin of ['http://a.example', 'https://x.b.example', 'http://g.example', 'http://y.example']) t.equal(await allows({ origin }), true, `${origin}, round ${round}`)
  }
  for (const origin of ['http://a.example:81', 'http://a.example.evil', 'https://a.example', 'http://x.b.example', 'https://b.example', 'null', 'HTTP://A.EXAMPLE']) t.equal(await allows({ origin }), false, origin)
  t.equal(await (await gate(t, { origin: [] }))({ origin: 'http://localhost' }), false, 'an empty list accepts no origin')
})

t.test('origin: a function decides, synchronously or as a promise, and only true permits', async t => {
  const asked: [string, string][] = []
  const rule = (origin: string, request: FastifyRequest) => {
    asked.push([origin, request.method])
    return origin === 'http://a.example'
  }
  const decided = await gate(t, { origin: rule })
  t.equal(await decided({ origin: 'http://a.example' }), true)
  t.same(asked, [['http://a.example', 'GET'], ['http://a.example', 'POST'], ['http://a.example', 'GET']])
  t.equal(await decided({ origin: 'http://b.example' }), false)

  let returned: unknown = true
  for (const allows of [await gate(t, { origin: () => returned as never }), await gate(t, { origin: async () => returned as never })]) {
    returned = true
    t.equal(await allows({ origin: 'http://a.example' }), true)
    for (returned of [false, undefined, null, 1, 'yes']) t.equal(await allows({ origin: 'http://a.example' }), false)
  }
})

t.test('a page of http does not belong to a site of https', async t => {
  const app = createApp(t, { trustProxy: true })
  await app.register(fastifyRooms as any, { prefix: '/rooms' })
  const ask = async (protocol: string, origin: string): Promise<number> => {
    const headers = { host: 'shop.example', origin, 'content-type': 'application/json', 'x-forwarded-proto': protocol }
    return (await app.inject({ method: 'POST', url: '/rooms/news', headers, payload: '1' })).statusCode
  }
  t.equal(await ask('http', 'https://shop.example'), 200, 'a proxy may have terminated TLS')
  t.equal(await ask('http', 'http://shop.example'), 200)
  t.equal(await ask('https', 'https://shop.example'), 200)
  t.equal(await ask('https', 'http://shop.example'), 403)
  for (const known of ['HTTPS', 'wss', 'http, https']) t.equal(await ask(known, 'http://shop.example'), 403, `${known}, a spelling of some proxies for upgrades`)
  t.equal(await ask('ws', 'http://shop.example'), 200)
})

/** The host that a proxy asks instead of the one that the browser asked. */
const behind = 'internal:3000'
type Headers = Record<string, string>

async function statusBehind (t: Test, options: FastifyServerOptions, headers: Headers, remoteAddress = '127.0.0.1'): Promise<number> {
  const app = createApp(t, options)
  await app.register(fastifyRooms as any, { prefix: '/rooms' })
  const { statusCode } = await app.inject({ url: '/rooms/news', remoteAddress, headers: { host: behind, origin: 'https://rooms.example', ...headers } })
  return statusCode
}

t.test('a forwarded host counts if the app trusts that proxy, and is ignored otherwise', async t => {
  const trusting: [FastifyServerOptions['trustProxy'], string, boolean][] = [
    [true, '10.0.0.7', true], ['10.0.0.0/8', '10.0.0.7', true], ['loopback, 10.0.0.7', '10.0.0.7', true], [['192.0.2.1', '10.0.0.7'], '10.0.0.7', true], [(address, hop) => address === '10.0.0.7' && hop === 0, '10.0.0.7', true],
    [false, '10.0.0.7', false], ['10.0.0.0/8', '192.0.2.9', false], [['10.0.0.7'], '10.0.0.8', false], [() => false, '10.0.0.7', false], [(_address, hop) => hop > 0, '10.0.0.7', false]
  ]
  const words: Headers[] = [
    { 'x-forwarded-host': 'rooms.example' }, { 'x-forwarded-host': 'rooms.example:443' }, { 'x-forwarded-host': 'evil.example, rooms.example' },
    { forwarded: 'host=rooms.example' }, { forwarded: 'for=192.0.2.1;proto=https;host="rooms.example:443";by=_proxy' }
  ]
  for (const [trustProxy, peer, trusted] of trusting) {
    for (const headers of words) t.equal(await statusBehind(t, { trustProxy: trustProxy! }, headers, peer), trusted ? 200 : 403, `${JSON.stringify(headers)} with ${trustProxy}`)
    // Headers of an untrusted peer must not help it, whatever address they claim.
    if (!trusted) t.equal(await statusBehind(t, { trustProxy: trustProxy! }, { 'x-forwarded-for': '10.0.0.7', forwarded: 'host=rooms.example' }, peer), 403)
  }
})

t.test('a number of hops trusts no particular peer: Fastify ignores both headers', async t => {
  for (const headers of [{ 'x-forwarded-host': 'rooms.example' }, { forwarded: 'host=rooms.example' }]) t.equal(await statusBehind(t, { trustProxy: 1 as never }, headers), 403)
})

t.test('an untrusted peer cannot become trusted by any Host that it sends', async t => {
  for (const trustProxy of [false, '10.0.0.0/8']) {
    for (const host of ['trusted', 'rooms.example', '']) {
      t.equal(await statusBehind(t, { trustProxy }, { host, forwarded: 'host=evil.example', origin: 'https://evil.example', 'x-forwarded-host': 'trusted' }), 403)
    }
  }
})

t.test('Forwarded supplies the host and the protocol that X-Forwarded-Host and X-Forwarded-Proto do not give', async t => {
  const trustProxy = true
  t.equal(await statusBehind(t, { trustProxy }, { 'x-forwarded-host': 'rooms.example', forwarded: 'host=evil.example' }), 200)
  t.equal(await statusBehind(t, { trustProxy }, { 'x-forwarded-host': 'evil.example', forwarded: 'host=rooms.example' }), 403)
  const page = { origin: 'http://rooms.example' }
  t.equal(await statusBehind(t, { trustProxy }, { ...page, forwarded: 'host=rooms.example;proto=https' }), 403, 'a page of http does not belong to a site of https')
  t.equal(await statusBehind(t, { trustProxy }, { ...page, forwarded: 'host=rooms.example;proto=http' }), 200)
  t.equal(await statusBehind(t, { trustProxy }, { ...page, forwarded: 'host=rooms.example;proto=https', 'x-forwarded-proto': 'http' }), 200)
  t.equal(await statusBehind(t, { trustProxy }, { ...page, forwarded: 'host=rooms.example;proto=http', 'x-forwarded-proto': 'https' }), 403)
  t.equal(await statusBehind(t, { trustProxy }, { host: 'rooms.example', forwarded: 'for=192.0.2.1' }), 200, 'Host counts if Forwarded has no host')
})

t.test('the last element of Forwarded counts, because the peer itself wrote it', async t => {
  const trustProxy = true
  t.equal(await statusBehind(t, { trustProxy }, { forwarded: 'host=evil.example, for=192.0.2.1;host=rooms.example' }), 200)
  t.equal(await statusBehind(t, { trustProxy }, { forwarded: 'host=rooms.example, for=192.0.2.1;host=evil.example' }), 403)
  t.equal(await statusBehind(t, { trustProxy }, { forwarded: 'host=rooms.example, for=192.0.2.1' }), 403, 'the element of the peer has no host')
})

t.test('a Forwarded header is parsed by its grammar, and a malformed one is ignored', async t => {
  const table: [string, string | undefined, string?][] = [
    ['host=a', 'a'], ['HOST=A', 'A'], ['Host="a:8080";Proto=https', 'a:8080', 'https'], ['for="[2001:db8::1]:4711";host=a', 'a'], [' host=a ; proto=http ', 'a', 'http'], [';;host=a;', 'a'],
    ['host=a, host=b', 'b'], ['host=a,host=b,', 'b'], ['host=a,, ,', 'a'], ['host=a, proto=http', undefined, 'http'], ['for="a, host=b";host=c', 'c'], ['host="a\\"b\\\\c"', 'a"b\\c'], ['host=""', ''],
    ['for="x, host=evil', undefined], ['host', undefined], ['host=', undefined], ['host=a b', undefined], ['host=a:8080', undefined], ['host=a;host=b', undefined], ['host=[::1]', undefined], ['host =a', undefined],
    ['for=";host=evil", host="a"', 'a'], ['x=", for=1;host="a"', undefined], ['constructor=1;host=a', 'a'], ['__proto__=1;__proto__=2;host=a', undefined], ['', undefined]
  ]
  for (const [header, host, proto] of table) t.strictSame({ host: undefined, proto: undefined, ...lastForwarded(header) }, { host, proto }, header)
  const started = process.cpuUsage()
  for (const hostile of ['host="' + '\\'.repeat(16_001), ';'.repeat(16_000) + '"', 'a=b;'.repeat(4_000) + '=', '"'.repeat(16_000), 'a'.repeat(16_000), 'a=b;' + ' '.repeat(100_000) + 'x', ' '.repeat(100_000) + 'x', 'a=b' + ' '.repeat(100_000) + 'x']) t.strictSame(lastForwarded(hostile), {})
  t.ok(process.cpuUsage(started).user < 1_000_000, 'the time to parse a header is linear in its length')
})

t.test('a request with several Origin headers is refused', async t => {
  for (const options of [{}, { origin: [/^http:\/\/rooms\.example$/, 'http://rooms.example'] }]) {
    const app = await createRooms(t, options)
    const url = await listen(app)
    const socket = dial(Number(url.split(':')[1]), '127.0.0.1')
    t.teardown(() => { socket.destroy() })
    socket.write('GET /rooms/news HTTP/1.1\r\nHost: rooms.example\r\nOrigin: http://rooms.example\r\nOrigin: http://rooms.example\r\nConnection: close\r\n\r\n')
    const [answer] = await once(socket, 'data')
    t.match(String(answer), /^HTTP\/1\.1 403 /)
  }
})

t.test('a list entry that no browser sends is refused at registration', async t => {
  const register = async (origin: unknown) => {
    const app = createApp(t)
    await app.register(fastifyRooms as any, { prefix: '/rooms', origin })
  }
  const never = [
    'https://example.com/', 'https://example.com/app', 'https://example.com?x', 'https://example.com#x', 'https://ann@example.com', 'example.com', '//example.com', '*', '', ' https://example.com', 'https://example.com ',
    'https://EXAMPLE.com', 'HTTPS://example.com', 'https://example.com:443', 'http://example.com:80', 'https://münchen.example', 'http://[0:0::1]', 'http://', 'http://exa mple', 'http://[::1', 'wss://example.com', 'ws://example.com',
    'https://*.example.com', 'https://example.com:99999', 'NULL', 'same'
  ]
  for (const [index, entry] of never.entries()) {
    const list = [...Array<RegExp>(index % 2).fill(/a/), entry]
    await t.rejects(register(list), { code: 'FST_ROOMS_INVALID_OPTION', message: `option "origin.${index % 2}" takes an origin as browsers send it, such as "https://example.com": in lower case, with a port only if it is not the default one, and nothing after it (a RegExp matches more than one); got ${JSON.stringify(entry)}` }, JSON.stringify(entry))
  }
  await register(['https://example.com', 'http://example.com:8080', 'https://xn--mnchen-3ya.example', 'http://[::1]:3000', 'http://localhost', 'null', 'capacitor://localhost', 'chrome-extension://abcdefgh', 'file://', /./])
})

t.test('an app with a scheme of its own, and a sandboxed page, may join if the list names their origin', async t => {
  const allows = await gate(t, { origin: ['capacitor://localhost', 'null'] })
  for (const [origin, allowed] of [['capacitor://localhost', true], ['null', true], ['capacitor://other', false], ['http://localhost', false]] as const) t.equal(await allows({ origin }), allowed, origin)
})

t.test('issue 8: a refused origin is logged at debug, with the host that it was compared with', async t => {
  const logs: LogLine[] = []
  const app = await createRooms(t, {}, logs)
  // A development server that rewrites Host, as Vite does with `changeOrigin`, but not Origin.
  const headers = { origin: 'http://localhost:5173', host: 'localhost:3000' }
  t.equal((await app.inject({ url: '/rooms/news', headers })).statusCode, 403)
  const refusals = logs.filter(({ msg }) => msg === 'origin refused')
  t.match(refusals, [{ level: 20, origin: 'http://localhost:5173', host: 'localhost:3000' }])
  t.equal((await app.inject({ url: '/rooms/news', headers: { ...headers, host: 'localhost:5173' } })).statusCode, 200)
  t.equal(logs.filter(({ msg }) => msg === 'origin refused').length, 1)
})
