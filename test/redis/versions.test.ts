/** Nodes that write in another version, beside current ones: docs/decisions/0018. */
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { redisBroker } from '../../lib/redis/index.ts'
import type { Broker } from '../../types/index.ts'
import type { RedisBrokerOptions } from '../../types/redis.ts'
import { createRooms, join, listen, until, type Client, type LogLine } from '../helpers/app.ts'
import { noRedis, startRedis } from '../helpers/redis-server.ts'
import { newerPort } from './newer-node.ts'

const topics = { 'chat:*': { publish: true, history: true, presence: true }, 'values:*': { publish: true, history: { latest: true } }, 'live:*': { publish: true } } as const

interface Node {
  readonly rooms: any
  readonly broker: Broker
  readonly logs: LogLine[]
  readonly errors: Error[]
  join (path: string): Promise<Client & { hello: any }>
}

async function startNode (t: Test, client: RedisBrokerOptions['client']): Promise<Node> {
  const logs: LogLine[] = []
  const errors: Error[] = []
  const broker = redisBroker({ client })
  const app = await createRooms(t, { topics, broker, limits: { publish: 500 }, onError: (error: Error) => { errors.push(error) } } as any, logs)
  const host = await listen(app)
  return { rooms: app.rooms, broker, logs, errors, join: path => join(t, `${host}/rooms/${path}`) }
}

/** Two current nodes, a and b, and one that writes in another version. */
async function startFleet (t: Test, port: number, what: Parameters<typeof newerPort>[1]): Promise<{ a: Node, b: Node, newer: Node }> {
  const current = (): Redis => new Redis(port, '127.0.0.1', { lazyConnect: true })
  return { a: await startNode(t, current()), b: await startNode(t, current()), newer: await startNode(t, newerPort(port, what)) }
}

/** The messages and gaps that a member has got, as data and reasons. */
const seen = (member: Client): unknown[] => member.received.map(text => JSON.parse(text)).flatMap(({ type, data, reason }) => type === 'message' ? [data] : type === 'gap' ? [reason] : [])
const offsets = (member: Client): number[] => member.received.map(text => JSON.parse(text)).flatMap(({ type, id }) => type === 'message' ? [Number(id.split('-')[1])] : [])
const told = ({ logs }: Node): LogLine[] => logs.filter(({ msg, err }) => msg === 'the broker is up, and reports a fault' && (err as { code?: string } | undefined)?.code === 'FST_ROOMS_BROKER_UNREADABLE')
const warned = ({ logs }: Node): LogLine[] => logs.filter(({ msg }) => msg.startsWith('a message of another node cannot be read'))

t.test('nodes of two versions', { skip: noRedis }, async t => {
  const { port } = await startRedis(t)

  t.test('publications of another version are told as lost, counted, and logged once for each kind; those of current nodes all arrive, at contiguous positions', async t => {
    const { a, b, newer } = await startFleet(t, port, 'contents')
    const members = [await a.join('chat:1'), await b.join('chat:1'), await newer.join('chat:1')]
    const first = await a.rooms.broadcast('chat:1', 1)
    t.match(await newer.rooms.broadcast('chat:1', 2), { published: true })
    t.match(await newer.rooms.broadcast('chat:1', 3), { published: true })
    const last = await b.rooms.broadcast('chat:1', 4)
    for (const member of members) {
      await until(() => seen(member).at(-1) === 4)
      t.same(seen(member), [1, 'lost', 4])
      t.same(offsets(member), [1, 4])
    }

    t.match((await b.join(`chat:1?since=${first.id}`)).hello, { recovered: false })
    t.match((await b.join(`chat:1?since=${last.id}`)).hello, { recovered: true })
    t.match(await a.rooms.history('chat:1', { since: first.id }), { recovered: false, messages: [{ data: 4 }] })
    const page = await a.rooms.history('chat:1', { limit: 10 })
    t.same([page.messages.map(({ data }: any) => data), page.complete], [[4], false])
    await newer.rooms.broadcast('chat:1', 5)
    t.match(await a.rooms.history('chat:1', { since: last.id }), { recovered: false, messages: [] })
    for (const node of [a, b]) {
      t.ok(node.broker.stats!().unreadable >= 2)
      t.same([told(node).length, node.errors], [2, []])
      t.match(node.rooms.health(), { ok: true, state: 'open', broker: 'up' })
    }
  })

  t.test('a value of another version hides no other value', async t => {
    const { a, newer } = await startFleet(t, port, 'contents')
    const first = await a.rooms.broadcast('values:1', 1, { key: 'x' })
    await newer.rooms.broadcast('values:1', 2, { key: 'y' })
    t.match(await a.rooms.history('values:1'), { messages: [{ data: 1 }], complete: false })
    const member = await a.join(`values:1?since=${first.id}`)
    t.match(member.hello, { recovered: false })
    await a.rooms.broadcast('values:1', 3, { key: 'y' })
    t.match(await member.next('message'), { data: 3 })
    t.match(await a.rooms.history('values:1'), { messages: [{ data: 1 }, { data: 3 }] })
  })

  t.test('in a topic that keeps nothing, its members get its own messages, and others are told', async t => {
    const { a, newer } = await startFleet(t, port, 'contents')
    const [near, far] = [await newer.join('live:1'), await a.join('live:1')]
    await newer.rooms.broadcast('live:1', 1)
    await until(() => seen(far).length === 1)
    await a.rooms.broadcast('live:1', 2)
    await until(() => seen(far).at(-1) === 2 && seen(near).at(-1) === 2)
    // This newer node reads the old version alone, so that its own messages come back to it as lost.
    t.same([seen(far), seen(near).filter(one => one !== 'lost')], [['lost', 2], [1, 2]])
  })

  t.test('calls to a node of another version end at their deadline, with a code; what it can read is done', async t => {
    const { a, newer } = await startFleet(t, port, 'contents')
    const [near, far] = [await a.join('chat:2'), await newer.join('chat:2')]
    const [here, there] = [near.hello.session, far.hello.session]
    await t.rejects(a.rooms.send(there, 'hi'), { code: 'FST_ROOMS_BROKER_DOWN', statusCode: 503 })
    t.match(await far.next('direct'), { data: 'hi' })
    await t.rejects(newer.rooms.send(here, 'hi'), { code: 'FST_ROOMS_BROKER_DOWN' })
    await t.rejects(newer.rooms.ask(here, 'hi', { timeout: 100 }), { code: 'FST_ROOMS_ASK_TIMEOUT' })
    t.notOk(near.received.some(text => text.includes('hi')))
    const names = async (node: Node): Promise<string[]> => (await node.rooms.members('chat:2')).map(({ session }: any) => session).sort()
    for (const node of [a, newer]) {
      t.same(await names(node), [here, there].sort(), 'members are noted by the server, whose layout is one for all')
      t.equal(await node.rooms.count('chat:2'), 2)
    }
    await until(() => a.rooms.stats().unreadable === 4) // two calls, the end of one of them, and an answer
    t.equal(warned(a).length, 1)
    t.match(warned(a), [{ level: 40, fault: 'version', detail: '"v" is 2, and this node reads 1' }])
    t.same([a.errors, newer.errors], [[], []])
  })

  t.test('messages of channels of another version: kept messages are read in their place, members are read again, and others are told', async t => {
    const { a, newer } = await startFleet(t, port, 'heads')
    const [member, live] = [await a.join('chat:3?presence=1'), await a.join('live:3')]
    await a.rooms.broadcast('chat:3', 1)
    await newer.rooms.broadcast('chat:3', 2)
    await until(() => seen(member).length === 2)
    await a.rooms.broadcast('chat:3', 3)
    await until(() => seen(member).length === 3)
    t.same([seen(member), offsets(member)], [[1, 2, 3], [1, 2, 3]])

    const other = await newer.join('chat:3')
    await until(() => member.received.some(text => text.includes('"join"') && text.includes(other.hello.session)))
    t.notOk(seen(member).includes('lost'))

    await newer.rooms.broadcast('live:3', 1)
    await until(() => seen(live).length === 1)
    await a.rooms.broadcast('live:3', 2)
    await until(() => seen(live).length === 2)
    t.same(seen(live), ['lost', 2])
    await t.rejects(newer.rooms.send(member.hello.session, 'hi'), { code: 'FST_ROOMS_BROKER_DOWN' })
    t.ok(a.broker.stats!().unreadable >= 4)
    t.same([told(a).length, a.errors], [3, []])
  })
})
