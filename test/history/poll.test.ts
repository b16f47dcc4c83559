import { get, type ClientRequest, type IncomingHttpHeaders, type OutgoingHttpHeaders } from 'node:http'
import { connect as connectHttp2, constants } from 'node:http2'
import t, { type Test } from 'tap'
import fastifyRooms from '../../lib/index.ts'
import { createApp, createRooms, join, listen, until, type AnyOptions, type LogLine } from '../helpers/app.ts'

const sleep = (milliseconds: number) => new Promise(resolve => setTimeout(resolve, milliseconds))
const day = 86_400_000

interface Answer { status: number, headers: IncomingHttpHeaders, body: any, text: string }

/** A request on a connection of its own. */
function ask (url: string, headers: OutgoingHttpHeaders = {}): { request: ClientRequest, answer: Promise<Answer> } {
  let request!: ClientRequest
  const answer = new Promise<Answer>((resolve, reject) => {
    request = get(`http://${url}`, { headers, agent: false }, response => {
      let text = ''
      response.setEncoding('utf8').on('data', chunk => { text += chunk })
      response.on('end', () => { resolve({ status: response.statusCode!, headers: response.headers, body: JSON.parse(text), text }) })
    })
    request.on('error', reject)
  })
  return { request, answer }
}

async function serve (t: Test, options: AnyOptions = {}, history: unknown = true, logs: LogLine[] = []) {
  const app = await createRooms(t, { topics: { news: { history, publish: true } as never, plain: { publish: true }, 'run:*': { history: true } }, ...options }, logs)
  const url = `${await listen(app)}/rooms`
  const publish = async (data: unknown, topic = 'news', more?: object): Promise<string> => (await (app.rooms as any).broadcast(topic, data, more)).id
  const waiting = (): number => app.rooms.stats().waiting
  return { app, url, publish, waiting }
}

t.test('a plain GET reads the newest messages: as rooms.history gives them, with the number of members', async t => {
  const { app, url, publish } = await serve(t)
  const empty = await ask(`${url}/news`).answer
  t.match(empty, { status: 200, headers: { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store', vary: 'Accept' } })
  t.match(empty.body, { topic: 'news', count: 0, messages: [], complete: true })
  t.equal(app.rooms.stats().topics, 0, 'it makes no room')
  const member = await join(t, `${url}/news`)
  t.equal(member.hello.id, empty.body.id, 'the id of an empty topic is a position, from which the first join goes on')
  member.send({ type: 'message', data: { text: 'h"i\n☃' }, key: 'k' })
  const { id } = await member.next('message')
  await publish(null)
  const { body } = await ask(`${url}/news`).answer
  t.same(body, { topic: 'news', count: 1, ...await (app.rooms as any).history('news') })
  t.same(body.messages[0], { id, data: { text: 'h"i\n☃' }, from: member.hello.session, key: 'k' })
  t.same(Object.keys(body), ['topic', 'id', 'count', 'messages', 'complete'])
  t.same((await ask(`${url}/news?limit=1`).answer).body, { topic: 'news', count: 1, id: body.id, messages: [body.messages[1]], complete: false })
  t.same((await ask(`${url}/plain`).answer).body, { topic: 'plain', count: 0, messages: [], complete: false })
  t.match((await ask(`${url}/run:1`).answer).body, { topic: 'run:1', messages: [], complete: true })
})

t.test('with since: pages, each of which goes on where the last one ended; a lost position is answered with the newest', async t => {
  const { url, publish } = await serve(t, {}, { size: 5 })
  const ids: string[] = []
  for (let n = 0; n < 8; n++) ids.push(await publish(n))
  const payloads = ({ messages }: any) => messages.map(({ data }: any) => data)
  const first = (await ask(`${url}/news?since=${ids[3]}&limit=2`).answer).body
  t.match(first, { recovered: true, complete: false, id: ids[5] })
  const second = (await ask(`${url}/news?since=${first.id}&limit=2`).answer).body
  t.match(second, { recovered: true, complete: true, id: ids[7] })
  t.same([...payloads(first), ...payloads(second)], [4, 5, 6, 7])
  const lost = (await ask(`${url}/news?since=${ids[0]}`).answer).body
  t.match(lost, { recovered: false, complete: false, id: ids[7] })
  t.same(payloads(lost), [3, 4, 5, 6, 7])
  t.same(payloads((await ask(`${url}/news?since=latest`).answer).body), [7])
  t.same(payloads((await ask(`${url}/news?since=0&limit=1000`).answer).body), [3, 4, 5, 6, 7])
})

t.test('state, then subscribe: the id of a snapshot is a valid since', async t => {
  const { url, publish } = await serve(t)
  await publish('before')
  const { id, messages } = (await ask(`${url}/news`).answer).body
  t.match(messages, [{ data: 'before' }])
  await publish('between')
  const member = await join(t, `${url}/news?since=${id}`)
  t.match(member.hello, { recovered: true, replayed: 1 })
  t.equal((await member.next('message')).data, 'between')
})

t.test('a plain GET is let in as a join is, and asked for history, too', async t => {
  const asked: unknown[] = []
  const { app, url } = await serve(t, {
    identify: ({ headers }) => {
      if (headers.authorization === undefined) throw Object.assign(new Error('who?'), { statusCode: 401 })
      return { user: headers.authorization }
    },
    authorize: ({ action, topic, identity, request }: any) => {
      asked.push([action, topic, identity.user, request.url])
      return !(identity.user === action)
    }
  })
  const status = async (authorization?: string, path = 'news', more: OutgoingHttpHeaders = {}) => (await ask(`${url}/${path}`, { ...(authorization === undefined ? {} : { authorization }), ...more }).answer).status
  t.equal(await status(), 401)
  t.equal(await status('join'), 403)
  t.same(asked.splice(0), [['join', 'news', 'join', '/rooms/news']])
  t.equal(await status('history'), 403)
  t.same(asked.splice(0), [['join', 'news', 'history', '/rooms/news'], ['history', 'news', 'history', '/rooms/news']])
  t.equal(await status('ann', 'news?wait=10&since=' + (await (app.rooms as any).history('news')).id), 200)
  t.same(asked.splice(0).map(([action]: any) => action), ['join', 'history'])
  t.equal(await status('history', 'plain'), 200, 'a topic without history has nothing to ask for')
  t.same(asked.splice(0), [['join', 'plain', 'history', '/rooms/plain']])
  t.equal(await status('history', 'news', { upgrade: 'foo' }), 426)
  t.same(asked.splice(0), [['join', 'news', 'history', '/rooms/news']], 'a request that reads nothing is not asked for history')
  t.equal(await status('ann', 'news', { origin: 'https://evil.example' }), 403)
  t.equal(await status('ann', 'other'), 404)
  t.match(app.rooms.stats().refusals, { unauthorized: 1, forbidden: 2, origin: 1, badRequest: 0 })
  t.equal(app.rooms.stats().connections, 0)
})

t.test('the host\'s hooks of the socket route run, and the headers that they have set stay', async t => {
  const sent: unknown[] = []
  const { url } = await serve(t, {
    routes: {
      socket: {
        onRequest: async (_request, reply) => { reply.header('vary', 'Origin').header('access-control-allow-origin', '*') },
        onSend: async (_request, _reply, payload) => {
          sent.push(payload)
          return payload
        }
      }
    }
  })
  const { headers, text } = await ask(`${url}/news`).answer
  t.match(headers, { vary: 'Origin, Accept', 'access-control-allow-origin': '*' })
  t.same(sent, [text])
})

t.test('Accept: JSON, or 406', async t => {
  const { app, url } = await serve(t)
  for (const [accept, status] of [
    ['application/json', 200], ['*/*', 200], ['application/*', 200], ['Application/JSON; charset=utf-8', 200], ['text/html, application/xhtml+xml, */*;q=0.8', 200], ['application/json, text/event-stream;q=0', 200],
    ['application/json;q=0.1', 200], ['text/event-stream;q=0', 406], ['text/html', 406], ['application/json;q=0', 406], ['application/json;q=0, */*', 406], ['*/*, application/json; q=0', 406], ['application/json, */*;q=0', 200],
    ['', 406], ['application/problem+json', 406], ['application/json;q=x', 406]
  ] as const) {
    const answer = await ask(`${url}/news`, { accept }).answer
    t.equal(answer.status, status, accept)
    t.match(answer.headers, { vary: 'Accept', 'cache-control': 'no-store' })
    if (status === 406) t.equal(answer.body.code, 'FST_ROOMS_NOT_ACCEPTABLE')
  }
  t.equal(app.rooms.stats().refusals.badRequest, 8)
})

t.test('a request for another protocol gets 426, and so does a handshake whose Upgrade a proxy has dropped', async t => {
  const { app, url } = await serve(t)
  for (const headers of [{ upgrade: 'foo' }, { upgrade: 'websocket' }, { 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==' }]) {
    const { status, headers: answered, body } = await ask(`${url}/news`, headers).answer
    t.equal(status, 426)
    t.equal(answered.upgrade, 'websocket')
    t.equal(body.code, 'FST_ROOMS_UPGRADE_REQUIRED')
  }
  t.equal((await app.inject({ method: 'HEAD', url: '/rooms/news' })).statusCode, 404, 'HEAD is not offered')
  t.equal(app.rooms.stats().refusals.badRequest, 0)
})

t.test('a wait is answered by the next message, with all messages of that turn', async t => {
  const { app, url, publish, waiting } = await serve(t)
  const top = (await ask(`${url}/news`).answer).body.id
  const { answer } = ask(`${url}/news?since=${top}&wait=60000`)
  await until(() => waiting() === 1)
  t.match(app.rooms.stats(), { topics: 1, connections: 0, members: 0, joined: 0 }, 'a room, and no member')
  const ids = [await publish(1), await publish(2)]
  t.same((await answer).body, { topic: 'news', id: ids[1], count: 0, messages: [{ id: ids[0], data: 1 }, { id: ids[1], data: 2 }], recovered: true, complete: true })
  t.match((await answer).headers, { 'cache-control': 'no-store', vary: 'Accept', 'content-type': 'application/json; charset=utf-8' })
  t.equal(waiting(), 0)
  await until(() => app.rooms.stats().topics === 0) // the room goes a second after the last wait
})

t.test('a wait is answered at once if there is anything newer, or if its position is lost', async t => {
  const { url, publish } = await serve(t, {}, { size: 1 })
  const ids = [await publish(1), await publish(2), await publish(3)]
  t.match((await ask(`${url}/news?since=${ids[1]}&wait=60000`).answer).body, { messages: [{ data: 3 }], recovered: true, complete: true })
  t.match((await ask(`${url}/news?since=${ids[0]}&wait=60000`).answer).body, { messages: [{ data: 3 }], recovered: false, complete: false })
  t.match((await ask(`${url}/news?since=${'0'.repeat(16)}-3&wait=60000`).answer).body, { messages: [{ data: 3 }], recovered: false })
})

t.test('a wait that ends without a message has an empty list and the same position', async t => {
  const { app, url, publish, waiting } = await serve(t)
  const id = await publish(1)
  const from = performance.now()
  const { body } = await ask(`${url}/news?since=${id}&wait=50`).answer
  t.ok(performance.now() - from >= 45)
  t.same(body, { topic: 'news', id, count: 0, messages: [], recovered: true, complete: true })
  const member = await join(t, `${url}/news`)
  t.match((await ask(`${url}/news?since=${id}&wait=1`).answer).body, { id, count: 1, messages: [] })
  await member.close()
  t.equal(waiting(), 0)
  await until(() => app.rooms.stats().topics === 0)
})

t.test('a wait of another limit, or behind another position, gets its own page', async t => {
  const { app, url, publish, waiting } = await serve(t)
  const ids = [await publish(0), await publish(1)]
  const one = ask(`${url}/news?since=${ids[1]}&wait=60000&limit=1`).answer
  const all = [ask(`${url}/news?since=${ids[1]}&wait=60000`).answer, ask(`${url}/news?since=${ids[1]}&wait=60000`).answer]
  const other = ask(`${url}/run:1?since=${(await (app.rooms as any).history('run:1')).id}&wait=60000`).answer
  await until(() => waiting() === 4)
  await Promise.all([publish(2), publish(3)])
  const page = (await one).body
  t.match(page, { messages: [{ data: 2 }], complete: false })
  t.match((await ask(`${url}/news?since=${page.id}&wait=60000`).answer).body, { messages: [{ data: 3 }], complete: true })
  for (const answer of all) t.match((await answer).body, { messages: [{ data: 2 }, { data: 3 }], complete: true })
  t.equal(waiting(), 1, 'requests of other topics go on waiting')
  await publish('x', 'run:1')
  t.match((await other).body, { topic: 'run:1', messages: [{ data: 'x' }] })
})

t.test('a poller misses no message, whenever it comes', async t => {
  const { url, publish } = await serve(t)
  let { id } = (await ask(`${url}/news`).answer).body
  const seen: number[] = []
  let published = 0
  const last = 200
  const publishing = (async () => {
    while (published < last) {
      await publish(++published)
      if (published % 3 === 0) await sleep(published % 7)
    }
  })()
  while (seen.at(-1) !== last) {
    const { body } = await ask(`${url}/news?since=${id}&wait=1000`).answer
    t.equal(body.recovered, true)
    seen.push(...body.messages.map(({ data }: any) => data))
    id = body.id
  }
  await publishing
  t.same(seen, Array.from({ length: last }, (_, index) => index + 1))
})

t.test('wait without a position to wait behind, out of range, or without history: 400', async t => {
  const { app, url, publish } = await serve(t)
  const id = await publish(1)
  for (const [query, message] of [
    ['news?wait=1000', /needs "since"/], ['news?wait=1000&since=0', /needs "since"/], ['news?wait=1000&since=latest', /needs "since"/], [`news?wait=0&since=${id}`, /takes 1 to 60000/], [`news?wait=-5&since=${id}`, /takes 1 to 60000/],
    [`news?wait=60001&since=${id}`, /takes 1 to 60000/], [`plain?wait=1000&since=${id}`, /"plain" keeps none/]
  ] as const) {
    const { status, body } = await ask(`${url}/${query}`).answer
    t.equal(status, 400, query)
    t.equal(body.code, 'FST_ROOMS_BAD_WAIT')
    t.match(body.message, message)
  }
  for (const query of ['wait=', 'wait=1.5', 'wait=x', 'wait=1e3', 'wait=1&wait=2', 'limit=', 'limit=0', 'limit=01', 'limit=-1', 'limit=1001', 'limit=1.5', 'limit=x', 'limit=1&limit=2']) {
    const { status, body } = await ask(`${url}/news?${query}&since=${id}`).answer
    t.equal(status, 400, query)
    t.equal(body.code, 'FST_ERR_VALIDATION')
  }
  t.equal(app.rooms.stats().refusals.badRequest, 20)
})

t.test('the waits are bounded, and so are the rooms that they make', async t => {
  const { app, url, publish, waiting } = await serve(t, { limits: { waiters: 2, topics: 1 } })
  const id = await publish(1)
  const path = `${url}/news?since=${id}&wait=60000`
  const first = ask(path)
  await until(() => waiting() === 1)
  const position = (await (app.rooms as any).history('run:1')).id
  const noRoom = await ask(`${url}/run:1?since=${position}&wait=60000`).answer
  t.match(noRoom, { status: 503, body: { code: 'FST_ROOMS_OVERLOADED' } })
  t.match(noRoom.headers['retry-after'], /^[1-9]\d*$/)
  t.equal(waiting(), 1)
  const second = ask(path)
  await until(() => waiting() === 2)
  const third = await ask(path).answer
  t.match(third, { status: 503, body: { code: 'FST_ROOMS_OVERLOADED' } })
  t.match(third.headers['retry-after'], /^[1-9]\d*$/)
  t.equal((await ask(`${url}/news`).answer).status, 200, 'a snapshot does not wait')
  t.equal(app.rooms.stats().refusals.overloaded, 2)
  await publish(2)
  for (const { answer } of [first, second]) t.match((await answer).body, { messages: [{ data: 2 }] })
  await until(() => app.rooms.stats().topics === 0)
  t.match((await ask(`${url}/run:1?since=${position}&wait=1`).answer).body, { messages: [] })
})

t.test('a wait ends with the connection of its client', async t => {
  const logs: LogLine[] = []
  const { app, url, publish, waiting } = await serve(t, {}, true, logs)
  const id = await publish(1)
  const requests = Array.from({ length: 20 }, () => ask(`${url}/news?since=${id}&wait=60000`))
  await until(() => waiting() === 20)
  for (const { request, answer } of requests) {
    answer.catch(() => {})
    request.destroy()
  }
  await until(() => waiting() === 0)
  await until(() => app.rooms.stats().topics === 0)
  t.same(logs.filter(({ level }) => level >= 40), [])
})

t.test('a client that has gone while a hook ran does not wait', async t => {
  let goOn!: () => void
  const { url, publish, waiting, app } = await serve(t, { identify: () => new Promise(resolve => { goOn = () => { resolve(null) } }) })
  const id = await publish(1)
  const { request, answer } = ask(`${url}/news?since=${id}&wait=60000`)
  answer.catch(() => {})
  await until(() => goOn !== undefined)
  request.destroy()
  await sleep(50)
  goOn()
  await sleep(50)
  t.equal(waiting(), 0)
  await until(() => app.rooms.stats().topics === 0)
})

t.test('over HTTP/2 a wait is answered, and ends with its stream, also if that has ended while a hook ran', async t => {
  let goOn: (() => void) | undefined
  const app = createApp(t, { http2: true } as object)
  await app.register(fastifyRooms as any, {
    prefix: '/rooms',
    topics: { news: { history: true } },
    identify: ({ headers }: any) => headers.slow === undefined ? null : new Promise(resolve => { goOn = () => { resolve(null) } })
  })
  const session = connectHttp2(`http://${await listen(app)}`)
  t.teardown(() => { session.destroy() })
  const waiting = (): number => app.rooms.stats().waiting
  const { id } = await app.rooms.broadcast('news', 1)
  const poll = (headers: object = {}) => {
    const stream = session.request({ ':path': `/rooms/news?since=${id}&wait=60000`, ...headers })
    stream.on('error', () => {})
    return { stream, text: stream.setEncoding('utf8').toArray().then(chunks => chunks.join(''), () => '') }
  }
  const [kept, cut, slow] = [poll(), poll(), poll({ slow: '1' })]
  await until(() => waiting() === 2 && goOn !== undefined)
  cut.stream.close(constants.NGHTTP2_CANCEL)
  slow.stream.close(constants.NGHTTP2_CANCEL)
  await until(() => waiting() === 1)
  await sleep(50)
  goOn!()
  await sleep(50)
  t.equal(waiting(), 1)
  await app.rooms.broadcast('news', 2)
  t.match(JSON.parse(await kept.text), { messages: [{ data: 2 }] })
  t.equal(waiting(), 0)
})

t.test('a drain answers all waits with what there is, and takes no new one', async t => {
  const { app, url, publish, waiting } = await serve(t)
  const id = await publish(1)
  const waits = Array.from({ length: 3 }, () => ask(`${url}/news?since=${id}&wait=60000`).answer)
  await until(() => waiting() === 3)
  await app.rooms.drain()
  for (const wait of waits) t.match(await wait, { status: 200, body: { id, messages: [], recovered: true, complete: true } })
  t.equal(waiting(), 0)
  t.match(await ask(`${url}/news?since=${id}&wait=60000`).answer, { status: 503, body: { code: 'FST_ROOMS_DRAINING' } })
  t.match(await ask(`${url}/news`).answer, { status: 503 })
  t.equal(app.rooms.stats().refusals.draining, 2)
})

t.test('a drain that begins while the hooks of a request run does not keep it waiting', async t => {
  let goOn!: () => void
  const { app, url, publish } = await serve(t, { identify: () => new Promise(resolve => { goOn = () => { resolve(null) } }) })
  const id = await publish(1)
  const { answer } = ask(`${url}/news?since=${id}&wait=60000`)
  await until(() => goOn !== undefined)
  await app.rooms.drain()
  goOn()
  t.match(await answer, { status: 200, body: { id, messages: [] } })
})

t.test('the closing of the app answers all waits', async t => {
  const { app, url, publish, waiting } = await serve(t)
  const id = await publish(1)
  const waits = Array.from({ length: 3 }, () => ask(`${url}/news?since=${id}&wait=60000`, { connection: 'keep-alive' }).answer)
  await until(() => waiting() === 3)
  const from = performance.now()
  await app.close()
  t.ok(performance.now() - from < 5_000)
  for (const wait of waits) t.match(await wait, { status: 200, body: { messages: [] } })
})

t.test('more requests than are answered in one turn are all answered', async t => {
  const { app, publish, waiting } = await serve(t)
  const id = await publish(1)
  const waits = Array.from({ length: 1_200 }, () => app.inject(`/rooms/news?since=${id}&wait=${day / 1_440}`))
  await until(() => waiting() === 1_200)
  const next = await publish(2)
  const bodies = new Set((await Promise.all(waits)).map(({ body }) => body))
  t.equal(bodies.size, 1)
  t.match(JSON.parse([...bodies][0]!), { id: next, messages: [{ data: 2 }] })
  t.equal(waiting(), 0)
})

t.test('the log shows limit and wait', async t => {
  const logs: any[] = []
  const app = await createRooms(t, { topics: { news: { history: true } } }, logs)
  await app.inject('/rooms/news?limit=5&token=secret')
  await app.inject(`/rooms/news?wait=1&since=${(await (app.rooms as any).history('news')).id}`)
  t.same(logs.map(({ req }) => req?.url).filter(Boolean).map(url => url.replace(/=[0-9a-f]{16}-0/, '=ID')), ['/rooms/news?limit=5&token=[redacted]', '/rooms/news?wait=1&since=ID'])
})

t.test('a wait ends with the credentials of its request', async t => {
  const app = await createRooms(t, { topics: { news: { history: true } as never }, identify: () => ({ user: 'ann', expires: Date.now() + 400 }) })
  const url = await listen(app)
  const { id } = await (app.rooms as any).history('news')
  const begun = performance.now()
  const response = await fetch(`http://${url}/rooms/news?since=${id}&wait=30000`)
  t.equal(response.status, 200)
  t.match(await response.json(), { messages: [], recovered: true, complete: true })
  t.ok(performance.now() - begun < 15_000)
})
