import t, { type Test } from 'tap'
import { createClient, type ClientRoom } from '../../lib/client/index.ts'
import { until } from '../helpers/app.ts'

type Answer = (socket: FakeSocket) => void

/** A WebSocket that a test answers. */
class FakeSocket {
  readyState = 0
  onopen: any = null
  onmessage: any = null
  onclose: any = null
  onerror: any = null
  sent: any[] = []
  readonly url: string

  constructor (url: string) {
    this.url = url
  }

  send (text: string): void {
    const frame = JSON.parse(text)
    this.sent.push(frame)
    if (frame.type === 'join') this.tell({ type: 'hello', topic: frame.topic, v: 1, id: '1-0', session: `${Math.random()}`, ref: 0, ...frame.since && { recovered: true } })
  }

  tell (frame: object): void { this.onmessage?.({ data: JSON.stringify(frame) }) }
  end (code: number): void { this.onclose?.({ code, reason: '' }) }
  close (): void { this.readyState = 3 }
}

const open: Answer = socket => { socket.tell({ type: 'hello', v: 1, id: '1-0', session: `${Math.random()}`, heartbeat: 0 }) }

/** A client with two rooms. `answers` are for the attempts to open a connection, in order; all further ones succeed. `body` is the answer to requests. */
function connect (t: Test, answers: Answer[], { body = '{"v":1,"protocols":["rooms.v1"],"messages":[]}', ...options }: { body?: string, multiplex?: false } = {}) {
  const sockets: FakeSocket[] = []
  const requests: string[] = []
  const WebSocket = class extends FakeSocket {
    constructor (url: string) {
      super(url)
      sockets.push(this)
      setTimeout(answers[sockets.length - 1] ?? open, 0, this)
    }
  }
  const client = createClient({
    url: 'http://rooms.invalid/rooms',
    ...options,
    WebSocket,
    async fetch (url, { headers }) {
      requests.push(`${headers.accept} ${new URL(url).pathname}`)
      if (headers.accept === 'text/event-stream') throw new Error('not in this test')
      return { ok: true, status: 200, headers: new Headers(), body: null, text: async () => body }
    }
  })
  t.teardown(() => client.close())
  return { rooms: ['a', 'b'].map(topic => client.room(topic)), sockets, requests }
}

const have = (rooms: ClientRoom<any, any, any, any>[], status: string) => until(() => rooms.every(room => room.getSnapshot().status === status))
const blocked: Answer = socket => { socket.end(1006) }

t.test('a connection whose end was told to each of its topics joins each of them once when it is back', async t => {
  const { rooms, sockets } = connect(t, [])
  await have(rooms, 'open')
  const bye = { type: 'bye', code: 1001, reason: 'going_away' }
  for (const topic of ['a', 'b']) sockets[0]!.tell({ ...bye, topic, retry: { min: 50, max: 50 } })
  sockets[0]!.tell({ ...bye, retry: { min: 0, max: 0 } })
  await have(rooms, 'open')
  await new Promise(resolve => setTimeout(resolve, 100))
  t.same(sockets.map(({ sent }) => sent.filter(({ type }) => type === 'join').map(({ topic }) => topic)), [['a', 'b'], ['a', 'b']])
  t.same(rooms.map(room => room.getSnapshot().status), ['open', 'open'])
})

t.test('a WebSocket that once does not come through may be an accident', async t => {
  const { rooms, sockets, requests } = connect(t, [open, blocked])
  await have(rooms, 'open')
  sockets[0]!.end(1006)
  await until(() => sockets.length === 3)
  await have(rooms, 'open')
  t.same(requests, ['application/json /rooms'])
  t.match(rooms.map(room => room.getSnapshot()), [{ transport: 'websocket', error: null }, { transport: 'websocket', error: null }])
})

t.test('event streams take the place of a shared connection that is blocked twice, also if it was open before', async t => {
  const { rooms, sockets, requests } = connect(t, [open, blocked, blocked])
  await have(rooms, 'open')
  sockets[0]!.end(1006)
  await until(() => requests.filter(request => request.startsWith('text/event-stream')).length >= 2)
  t.equal(sockets.length, 3)
  t.same(new Set(requests.filter(request => request.startsWith('text/event-stream'))), new Set(['text/event-stream /rooms/a', 'text/event-stream /rooms/b']))
  t.match(rooms.map(room => room.getSnapshot().transport), ['event-stream', 'event-stream'])
})

t.test('a topic that ended alone is joined again on the same connection', async t => {
  const { rooms, sockets } = connect(t, [])
  await have(rooms, 'open')
  sockets[0]!.tell({ type: 'bye', topic: 'a', code: 4201, reason: 'slow', retry: { min: 0, max: 0 } })
  t.same(rooms.map(room => room.getSnapshot().status), ['reconnecting', 'open'])
  await have(rooms, 'open')
  t.same(sockets.map(({ sent }) => sent.map(({ topic }) => topic)), [['a', 'b', 'a']])
})

t.test('each room has its own connection if something else answers at the URL of the shared one', async t => {
  const { rooms, sockets } = connect(t, [blocked], { body: '{"hello":"world"}' })
  await have(rooms, 'open')
  t.same(sockets.map(({ url }) => new URL(url).pathname), ['/rooms', '/rooms/a', '/rooms/b'])
})

t.test('rooms with connections of their own change to event streams together', async t => {
  const { rooms, requests } = connect(t, Array(4).fill(blocked), { multiplex: false })
  await until(() => ['a', 'b'].every(topic => requests.includes(`text/event-stream /rooms/${topic}`)))
  t.match(rooms.map(room => room.getSnapshot().transport), ['event-stream', 'event-stream'])
})
