import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import Fastify from 'fastify'
import { WebSocket } from 'ws'
import fastifyRooms from '../lib/index.ts'
import type { RoomsOptions, Session } from '../types/index.ts'
import { RawPeer, shaped } from './adversaries/peer.ts'

/**
 * The soak, `npm run soak`: members join and leave in every possible way, and must leave nothing behind: no map entry, listener, timer or object. SOAK_CYCLES is the
 * number of cycles, 100,000 by default. The script needs --expose-gc, prints the heap meanwhile, and exits with 1 if anything remains.
 */
const cycles = Number(process.env['SOAK_CYCLES'] ?? 100_000)
/** Concurrent cycles. */
const width = 40
/** Bytes by which the heap may grow after the warm-up, for data of the engine itself. A session with its objects has some kilobytes. */
const tolerance = 4_000_000
const { gc } = globalThis as { gc?: () => void }
if (gc === undefined) throw new Error('the soak needs --expose-gc')

/** Resources that hold the process and did not exist before. Earlier ones may have ended. */
const since = (before: string[]): string[] => process.getActiveResourcesInfo().filter(name => {
  const known = before.indexOf(name)
  if (known !== -1) before = before.toSpliced(known, 1)
  return known === -1
})
const before = process.getActiveResourcesInfo()
const stray: unknown[] = []
process.on('unhandledRejection', error => { stray.push(error) })

/** Sessions and requests that are not yet collected. */
let alive = 0
const collected = new FinalizationRegistry<undefined>(() => { alive-- })
const watch = (object: object): void => {
  alive++
  collected.register(object, undefined)
}

/** Returns a new promise for each call, because waiters are attached to it. */
const never = (): Promise<never> => new Promise(() => {})
const refuse = (statusCode: number): never => { throw Object.assign(new Error('as it was told to'), { statusCode }) }
/** Milliseconds for which presence holds the leave of a user. */
const grace = 200
/** Users that are in a topic, as the hooks tell it. */
const present = new Set<string>()
const faults: string[] = []
const app = Fastify()
await app.register(fastifyRooms as any, {
  prefix: '/rooms',
  topics: { '*': { publish: true, presence: { grace }, post: true } },
  heartbeat: { interval: 400, timeout: 400 },
  limits: { handshake: 1_000 },
  identify: request => {
    const { way, user } = request.query as { way?: string, user?: string }
    if (way === 'unknown') refuse(401)
    return user === undefined ? null : { user, info: { user } }
  },
  authorize: context => {
    if (context.action !== 'join') return true
    const { way } = context.request.query as { way?: string }
    // A connection of several topics names the way of its joins in its URL.
    if (way === 'asked') return sleep(2, true)
    return way === 'undecided' ? never() : way !== 'forbidden'
  },
  onJoin: async (session, request) => {
    watch(session)
    watch(request)
    const { way } = request.query as { way?: string }
    if (way === 'false') return false
    if (way === 'throws') throw new Error('as it was told to')
    if (way === 'late') await sleep(5)
    if (way === 'stuck') await never()
    if (way === 'close') session.close(4001)
    if (way === 'send') session.send('welcome')
    if (way === 'iterate') {
      for await (const message of session) if (message === 'over') return
    }
    if (way === 'streams') session.readable.on('error', () => {}).pipe(session.writable as any)
    if (way === 'signal') session.signal.addEventListener('abort', () => {})
  },
  onMessage: {
    '*': async (session: Session, payload: any) => {
      if (payload === 'crash') throw new Error('as it was told to')
      if (payload === 'stuck') return Promise.race([never(), once(session.signal, 'abort')])
      if (payload === 'ask') session.rooms.ask(session.id, 'well?', { timeout: 60_000 }).catch(() => {})
      else await session.rooms.broadcast(session.topic, payload, { except: session.id })
    }
  },
  onUserJoin: ({ user, topic }) => {
    if (present.has(`${user} ${topic}`)) faults.push(`${user} joined ${topic} twice`)
    present.add(`${user} ${topic}`)
    if (user === 'crash') throw new Error('as it was told to')
  },
  onUserLeave: async ({ user, topic }) => {
    if (!present.delete(`${user} ${topic}`)) faults.push(`${user} left ${topic} without a join`)
    if (user === 'crash') throw new Error('as it was told to')
  },
  onLeave: session => { if (session.user === 'crash') throw new Error('as it was told to') },
  onError: () => {}
} satisfies RoomsOptions<any> as any)
app.post('/order', async request => {
  watch(request)
  request.rooms.broadcast('news', 'ordered')
  return 'ok'
})
await app.listen({ host: '127.0.0.1', port: 0 })
const { port } = app.server.address() as AddressInfo

/** The number of listeners of the http server. */
const listeners = (): string => app.server.eventNames().map(name => `${String(name)} ${app.server.listenerCount(name)}`).sort().join(', ')
const rooms = app.rooms as any

interface Client { socket: WebSocket, session: string, closed: Promise<unknown> }

async function join (query: string, mode = 'rooms.v1'): Promise<Client> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/rooms${query === '' || query.startsWith('?') ? '' : '/'}${query}`, mode, { perMessageDeflate: false })
  socket.on('error', () => {})
  const closed = new Promise(resolve => { socket.on('close', resolve) })
  const client: Client = { socket, session: '', closed }
  const greeted = new Promise<void>(resolve => {
    socket.on('message', data => {
      const frame = mode === 'rooms.v1' ? JSON.parse(data.toString()) : {}
      if (frame.type === 'hello') client.session ||= frame.session ?? ''
      resolve()
    })
  })
  await Promise.race([mode === 'rooms.v1' ? greeted : once(socket, 'open'), closed])
  return client
}

const say = ({ socket }: Client, frame: object | string): void => { if (socket.readyState === WebSocket.OPEN) socket.send(typeof frame === 'string' ? frame : JSON.stringify(frame)) }
const leave = async (client: Client): Promise<void> => {
  client.socket.close()
  await client.closed
}

/** Opens a connection that joins three topics by frames, and waits until each is answered. */
async function joinMany (topic: string, query = ''): Promise<Client & { topics: string[] }> {
  const client = await join(`?${query}`)
  const topics = [topic, `${topic}-2`, 't1']
  const answered = new Promise<void>(resolve => {
    let count = 0
    client.socket.on('message', data => {
      const { type, ref } = JSON.parse(data.toString())
      if (typeof ref === 'string' && ref.startsWith('join') && (type === 'hello' || type === 'ack') && ++count === topics.length) resolve()
    })
  })
  for (const name of topics) {
    say(client, { type: 'join', topic: name, presence: true, ref: `join ${name}` })
    say(client, { type: 'message', topic: name, data: 'behind the join', ref: 1 })
  }
  await Promise.race([answered, client.closed])
  return { ...client, topics }
}

/** The ways to join and leave. `topic` is one of a few, or unique. */
const ways: ((topic: string, n: number) => Promise<void>)[] = [
  async (topic, n) => {
    const client = await join(`${topic}?user=u${n % 50}&presence=1`)
    say(client, { type: 'message', data: n, ref: 1 })
    await leave(client)
  },
  async topic => {
    const client = await join(`${topic}?since=0`)
    say(client, { type: 'message', data: 'gone before it is answered' })
    client.socket.terminate()
  },
  async topic => {
    const client = await join(topic)
    await rooms.kick({ session: client.session })
    await client.closed
  },
  async topic => {
    for (const way of ['false', 'throws', 'close', 'unknown', 'forbidden']) await (await join(`${topic}?way=${way}`)).closed
  },
  async topic => {
    const client = await join(`${topic}?user=crash&way=late`)
    for (let n = 0; n < 3; n++) say(client, { type: 'message', data: 'crash', ref: n })
    await leave(client)
  },
  async topic => {
    const client = await join(`${topic}?way=signal`)
    say(client, { type: 'message', data: 'stuck' })
    say(client, { type: 'message', data: 'behind it' })
    await sleep(2)
    client.socket.terminate()
  },
  async (topic, n) => {
    const client = await rooms.inject(`/rooms/${topic}?presence=1&user=i${n % 50}`)
    client.send({ type: 'message', data: n, ref: 1 })
    await client.next('ack')
    await client.close()
  },
  async topic => {
    const client = await join(topic, 'rooms.raw')
    say(client, '"raw"')
    await leave(client)
  },
  async (topic, n) => {
    const client = await join(`${topic}?user=p${n}`)
    say(client, { type: 'presence', info: { n } })
    say(client, { type: 'presence' })
    say(client, { type: 'direct', to: client.session, data: 'psst' })
    await leave(client)
  },
  async topic => {
    const stop = new AbortController()
    const subscription = rooms.subscribe(topic, { signal: stop.signal })
    await rooms.broadcast(topic, 'to a subscriber')
    await subscription.next()
    stop.abort()
  },
  async topic => {
    const client = await join(`${topic}?way=send`)
    say(client, { type: 'message', data: 'ask' })
    const asked = rooms.ask(client.session, 'and?', { timeout: 60_000 }).catch(() => {})
    client.socket.terminate()
    await asked
  },
  async topic => {
    const client = await join(`${topic}?way=iterate`)
    say(client, { type: 'message', data: 'read' })
    say(client, { type: 'message', data: 'over' })
    await client.closed
  },
  async topic => {
    const client = await join(`${topic}?way=streams`)
    say(client, { type: 'message', data: 'through' })
    await leave(client)
  },
  async topic => {
    const peer = await RawPeer.join(port, `/rooms/${topic}`)
    peer.write(shaped('', { rsv: 7 }))
    await peer.until(() => peer.closeCode !== undefined || peer.over, 'closed')
    peer.destroy()
  },
  async topic => {
    const peer = await RawPeer.connect(port)
    peer.write(peer.upgrade(`/rooms/${topic}`))
    peer.socket.resetAndDestroy()
  },
  async () => { await app.inject({ method: 'POST', url: '/order' }) },
  async (topic, n) => {
    const client = await joinMany(topic, `user=m${n % 50}`)
    for (const name of client.topics.slice(1)) say(client, { type: 'leave', topic: name, ref: 2 })
    say(client, { type: 'join', topic: client.topics[1], since: '0' })
    await leave(client)
  },
  async topic => {
    const client = await joinMany(topic, 'way=signal')
    for (const name of client.topics) say(client, { type: 'message', topic: name, data: 'stuck' })
    say(client, { type: 'leave', topic })
    await sleep(2)
    client.socket.terminate()
  },
  async (topic, n) => {
    const client = await joinMany(topic, `user=k${n}`)
    await rooms.kick({ user: `k${n}`, topic })
    await rooms.kick({ user: `k${n}` })
    await client.closed
  },
  async topic => {
    // It leaves, or goes, before any join is decided.
    const client = await join('?way=asked')
    for (const name of [topic, 't2']) say(client, { type: 'join', topic: name })
    say(client, { type: 'leave', topic })
    client.socket.terminate()
    await client.closed
  },
  async topic => {
    for (const way of ['false', 'throws', 'close', 'forbidden']) await leave(await joinMany(topic, `way=${way}`))
    await leave(await join(''))
  },
  async topic => {
    const client = await rooms.inject('/rooms?user=i0')
    client.send({ type: 'join', topic, ref: 1 })
    await client.next('hello')
    client.send({ type: 'leave', topic, ref: 2 })
    await client.next('ack')
    await client.close()
  },
  async topic => { await app.inject({ method: 'POST', url: `/rooms/${topic}`, payload: { to: 'all' } }) }
]

/** Slow ways, and therefore rare: a peer that disappears, an onJoin that never settles, a request that never ends. */
const slowWays: ((topic: string) => Promise<void>)[] = [
  async topic => {
    const peer = await RawPeer.join(port, `/rooms/${topic}`)
    peer.socket.pause()
    await sleep(1_500)
    peer.destroy()
  },
  async topic => { await (await join(`${topic}?way=stuck`)).closed },
  async topic => {
    // The joins end after limits.handshake, the connection does not.
    for (const way of ['stuck', 'undecided']) await leave(await joinMany(topic, `way=${way}`))
  },
  async topic => {
    const peer = await RawPeer.connect(port)
    peer.write(peer.upgrade(`/rooms/${topic}`).slice(0, 60))
    await sleep(200)
    peer.destroy()
  }
]

async function run (from: number, to: number): Promise<void> {
  let next = from
  const work = async (): Promise<void> => {
    while (next < to) {
      const n = next++
      const topic = n % 3 === 0 ? `t${n}` : `t${n % 7}`
      if (n % 500 < slowWays.length) await slowWays[n % 500]!(topic)
      else await ways[n % ways.length]!(topic, n)
    }
  }
  await Promise.all(Array.from({ length: width }, work))
}

/** Waits until all sessions have ended and the engine has collected their objects. */
async function settle (): Promise<void> {
  const deadline = Date.now() + 20_000
  const { stats } = rooms
  const isEmpty = (): boolean => {
    const { connections, topics, members } = stats.call(rooms)
    return connections + topics + members === 0 && alive === 0
  }
  do {
    gc!()
    await sleep(50)
    for (let n = 0; n < 5; n++) await turn()
  } while (!isEmpty() && Date.now() < deadline)
  gc!()
}

const series: { cycles: number, heap: number, external: number, alive: number }[] = []
const look = (done: number): void => {
  const { heapUsed, external } = process.memoryUsage()
  series.push({ cycles: done, heap: heapUsed, external, alive })
  console.log(`${String(done).padStart(7)} cycles: heap ${(heapUsed / 1e6).toFixed(2)} MB, external ${(external / 1e6).toFixed(2)} MB, ${alive} sessions and requests alive`)
}

const began = performance.now()
const idle = { listeners: listeners(), resources: [] as string[] }
const parts = 10
for (let part = 0; part < parts; part++) {
  await run(Math.round(part * cycles / parts), Math.round((part + 1) * cycles / parts))
  await settle()
  if (part === 0) idle.resources = process.getActiveResourcesInfo()
  look(Math.round((part + 1) * cycles / parts))
}

await sleep(3 * grace)
if (present.size > 0) faults.push(`users: ${[...present].slice(0, 5).join(', ')}`)
const { connections, topics, members, queuedBytes, errors } = rooms.stats()
if (connections + topics + members + queuedBytes > 0) faults.push(`stats: ${JSON.stringify({ connections, topics, members, queuedBytes })}`)
if (alive > 0) faults.push(`${alive} sessions and requests were not collected`)
if (listeners() !== idle.listeners) faults.push(`listeners of the server: ${listeners()} instead of ${idle.listeners}`)
if (since(idle.resources).length > 0) faults.push(`resources: ${since(idle.resources).join(', ')}`)
const growth = series.at(-1)!.heap - series[0]!.heap
if (growth > tolerance) faults.push(`the heap has grown by ${growth} bytes`)
if (stray.length > 0) faults.push(`rejections that nobody handled: ${stray.slice(0, 5).map(String).join('; ')}`)
if (errors === 0) faults.push('no hook has crashed')
for (let user = 0; user < 50; user++) {
  const { local } = await rooms.sendToUser(`u${user}`, 'still there?')
  if (local > 0) faults.push(`u${user} has ${local} sessions`)
}
await app.close()
gc()
await sleep(50)
if (since(before).length > 0) faults.push(`resources after the close: ${since(before).join(', ')}`)
if (app.server.listenerCount('upgrade') > 0) faults.push(`${app.server.listenerCount('upgrade')} listeners of upgrades are left`)

console.log(`${cycles} cycles in ${Math.round((performance.now() - began) / 1_000)} s, ${errors} errors of hooks; the heap has grown by ${(growth / 1e6).toFixed(2)} MB since the first tenth`)
console.log(faults.length === 0 ? 'nothing is left' : faults.join('\n'))
process.exitCode = faults.length === 0 ? 0 : 1
