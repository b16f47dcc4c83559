/** A rolling deploy of three nodes behind nginx, which is configured as in docs/operations.md. */
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { connect, setGlobal, type AnyRoom } from './client/kit.ts'
import { until } from './helpers/app.ts'
import { freePort, startExample, withoutSignals, type Example } from './helpers/process.ts'
import { noRedis, startRedis } from './helpers/redis-server.ts'
import { missing, startNginx } from './proxies/start.ts'

/** Milliseconds for an expected event: many times its duration on a busy machine. */
const patience = 30_000
/** Members over WebSocket, and over event streams. */
const sockets = 96
const streams = 12
/** Milliseconds between two messages of a publisher. */
const pause = 100

interface Line { event: string, at: number, code?: number, by?: string }

/** A node as a process, which can be restarted. */
class Node {
  readonly exits: (number | null)[] = []
  readonly #start: () => Promise<Example>
  #process: Example | undefined
  #before: Line[] = []

  constructor (t: Test, env: Record<string, string>) {
    this.#start = () => startExample(t, 'test/rolling/node.ts', env)
  }

  /** All that its processes have printed. */
  get lines (): Line[] { return [...this.#before, ...this.#process?.lines.filter(line => line.startsWith('{')).map(line => JSON.parse(line) as Line) ?? []] }
  of (event: string): Line[] { return this.lines.filter(line => line.event === event) }

  async start (): Promise<void> {
    this.#before = this.lines
    this.#process = await this.#start()
  }

  async stop (): Promise<void> {
    const { code } = await this.#process!.stop()
    this.exits.push(code)
  }
}

/** The upstream of docs/operations.md for several nodes, in place of the one for one node. */
function startBalancer (t: Test, nodes: string[]) {
  return startNginx(t, nodes, {
    // Members come without TLS, and all from one address.
    ' ssl default_server': ' default_server',
    ' ssl;': ';',
    '  ssl_reject_handshake on;\n': '',
    'server_name rooms.example.com': 'server_name 127.0.0.1',
    'rooms_open 100': 'rooms_open 1000',
    'fail_timeout=2s': 'fail_timeout=1s',
    'rate=20r/s': 'rate=1000r/s',
    'burst=60': 'burst=1000'
  })
}

/** The milliseconds from one tenth of the times to nine tenths. */
function spread (times: number[]): number {
  const sorted = times.toSorted((a, b) => a - b)
  return sorted[Math.floor(sorted.length * 0.9)]! - sorted[Math.floor(sorted.length * 0.1)]!
}

const skip = withoutSignals || noRedis || (process.env.CI === undefined && missing('nginx'))

t.test('three nodes behind nginx are restarted one after another: members get each message once, in order, and come back spread over time', { skip }, async t => {
  const redis = await startRedis(t)
  const ports = await Promise.all(Array.from({ length: 3 }, freePort))
  const nodes = ports.map(port => new Node(t, { PORT: String(port), REDIS: String(redis.port) }))
  await Promise.all(nodes.map(node => node.start()))
  const { port } = await startBalancer(t, ports.map(port => `127.0.0.1:${port}`))
  const host = `127.0.0.1:${port}`

  /** The positions that each member got. */
  const seen: string[][] = []
  const join = (options = {}): AnyRoom => {
    const room = connect(t, host, options).room('news') as AnyRoom
    const got: string[] = []
    seen.push(got)
    room.on('message', ({ id, data }) => { got.push(`${id} ${data}`) })
    return room
  }
  const rooms = Array.from({ length: sockets }, () => join({ queue: 100 }))
  setGlobal(t, 'WebSocket', undefined)
  rooms.push(...Array.from({ length: streams }, () => join({ WebSocket: undefined })))
  const areOpen = (): boolean => rooms.every(room => room.getSnapshot().status === 'open')
  await until(areOpen, patience)
  t.equal(rooms.filter(room => room.getSnapshot().transport === 'event-stream').length, streams)

  const over = new AbortController()
  /** Acknowledged messages with their positions. */
  const acknowledged: string[] = []
  let refusals = 0
  /** Publishes one message after another, until the end. Each is sent again, under its name, until it is acknowledged. */
  const publish = async (name: string, send: (data: string, mid: string) => Promise<string>): Promise<void> => {
    for (let n = 1; !over.signal.aborted; n++) {
      const mid = randomUUID()
      const data = `${name}-${n}`
      for (let id; id === undefined; await sleep(pause)) {
        try {
          id = await send(data, mid)
          acknowledged.push(`${id} ${data}`)
        } catch {
          refusals++
        }
      }
    }
  }
  const post = async (data: string, mid: string): Promise<string> => {
    const response = await fetch(`http://${host}/rooms/news`, { method: 'POST', headers: { 'content-type': 'application/json', 'idempotency-key': mid }, body: JSON.stringify(data) })
    const { id, published } = await response.json() as { id?: string, published?: boolean }
    if (!response.ok || published !== true) throw new Error(`${response.status}`)
    return id!
  }
  /** A member publishes through its connection, and sees its message like all others. */
  const say = (room: AnyRoom, got: string[]) => async (data: string, mid: string): Promise<string> => {
    await room.publish(data, { mid })
    await until(() => got.some(line => line.endsWith(` ${data}`)), patience)
    return got.find(line => line.endsWith(` ${data}`))!.split(' ')[0]!
  }
  const publishers = [publish('a', post), publish('b', post), publish('c', say(rooms[0]!, seen[0]!)), publish('d', say(rooms[1]!, seen[1]!))]

  const spreads: number[] = []
  for (const node of nodes) {
    const before = acknowledged.length
    const left = node.of('leave').length
    await node.stop()
    const gone = node.of('leave').length - left
    t.ok(gone >= 20, `${gone} members leave with the node`)
    await Promise.all([node.start(), until(areOpen, patience)])
    const from = node.of('drain begin').at(-1)!.at
    const joins = nodes.flatMap(other => other.of('join')).filter(({ at }) => at >= from)
    t.ok(joins.length >= gone, `${joins.length} come back`)
    spreads.push(spread(joins.map(({ at }) => at)))
    await until(() => acknowledged.length > before + 8, patience)
  }
  over.abort()
  await Promise.all(publishers)

  // An offset has no leading zeros.
  const expected = acknowledged.toSorted((a, b) => Number(/-(\d+) /.exec(a)![1]) - Number(/-(\d+) /.exec(b)![1]))
  await until(() => seen.every(got => got.length >= expected.length), patience).catch(() => {})
  t.ok(seen.every(got => got.join() === expected.join()), 'each member got each message once, in order')
  t.equal(new Set(expected.map(line => line.split(' ')[1])).size, expected.length)
  t.ok(expected.length > 60, `${expected.length} messages, ${refusals} refusals`)
  for (const room of rooms) {
    const { recovered, gap, status } = room.getSnapshot()
    if (!recovered || gap !== null || status !== 'open') t.fail(`a member is ${status}, with recovered ${recovered}`)
  }
  const failures = rooms.flatMap(room => room.log()).filter(({ status, error }) => status === 'reconnecting' && error !== null && error.code !== 'going_away')
  t.same(failures, [], 'nginx leads each of them to a node that takes it')
  t.same(nodes.map(({ exits }) => exits), [[0], [0], [0]], 'no node was stopped before its members had left')
  const leaves = nodes.flatMap(node => node.of('leave'))
  t.ok(leaves.length >= rooms.length)
  t.ok(leaves.every(({ code }) => code === 1001), 'each of them was told')
  // A machine that stalls may bunch the joins of one restart, hardly of three.
  t.ok(Math.max(...spreads) >= 300, `milliseconds from the first to the last tenth of the joins: ${spreads}`)
})
