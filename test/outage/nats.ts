import type { Test } from 'tap'
import { checkNodes } from './checks.ts'
import { faults as faultsOverRedis, type Fault } from './faults.ts'
import { Fleet, type FleetNode, type FleetOptions } from './fleet.ts'
import type { Watched, World } from './members.ts'
import { runScheduleOver, type Contract, type Disturbance, type ScheduleOptions, type ScheduleResult } from './model.ts'
import { startNatsServer, type NatsFleetServer } from './nats-server.ts'
import type { Publisher, Sent } from './publisher.ts'

/** Milliseconds that a message may take from its node to a member, on a busy machine. */
const underWay = 1_500
/** Milliseconds after which a node that is whole again must deliver what others publish. */
const healed = 1_000
/** Milliseconds within which a node says that its connection has ended. */
const noticed = 1_500
/** Most bytes of publications that the server has not confirmed: the broker's bound, and one large message. */
const mostQueued = 16_777_216 + 1_048_576

/** The faults that need nothing of Redis. */
const shared = [
  'the server is killed, and starts again with its data',
  'the server is killed, and starts again at once',
  'the server is suspended',
  'connections of a node end',
  'connections of a node are reset',
  'connections of a node are refused',
  'connections of a node are cut inside messages',
  'a node is in a black hole',
  'nothing comes from the server',
  'nothing comes to the server',
  'a slow link',
  'a node is killed',
  'a node starts while the server is down',
  'a node is suspended'
]

const faults: Fault<NatsFleetServer>[] = shared.map(name => {
  const fault = faultsOverRedis.find(fault => fault.name === name)
  if (fault === undefined) throw new Error(`there is no fault "${name}"`)
  return fault as Fault<any>
})

/** When a node delivers again what others publish: some time after the cause was gone and after it was up again. */
function endOf ({ from, over }: Disturbance, node: FleetNode): number {
  let end = over
  for (const [index, { state, at }] of node.states.entries()) {
    if (state === 'up' || at < from || at > end + noticed) continue
    const up = node.states.slice(index).find(({ state }) => state === 'up')
    end = Math.max(end, up?.at ?? Infinity)
  }
  return end + healed
}

/** The times in which a node may lose messages of others. */
function lossesOf (node: FleetNode, disturbances: readonly Disturbance[]): { from: number, to: number }[] {
  const own = disturbances.filter(({ name, node: cut }) => cut === undefined || cut === node || name === 'a node starts while the server is down')
  return own.map(disturbance => ({ from: disturbance.from, to: endOf(disturbance, node) }))
}

/** Compares members of topics without history with what was published. */
function checkRest (world: World, rooms: readonly Watched[], { sent, topics }: Publisher, disturbances: readonly Disturbance[]): void {
  const { fleet, faults } = world
  const losses = new Map(fleet.nodes.map(node => [node, lossesOf(node, disturbances)]))
  const isCut = (node: FleetNode, from: number, to: number): boolean => losses.get(node)!.some(loss => loss.from <= to && loss.to >= from)
  const resent = new Set(sent.filter(({ node }) => node === undefined).map(({ n }) => n))
  for (const room of rooms) {
    for (const n of room.repeated) if (!resent.has(n)) faults.push(`${room.describe()} got ${n} twice, though it was sent once`)
    for (const n of room.got.keys()) if (topics.get(n) !== room.topic) faults.push(`${room.describe()} got ${n} of another topic`)
    // Messages arrive in the order of this map.
    const arrivals = [...room.got.values()]
    for (const one of sent) {
      if (one.topic !== room.topic) continue
      const { n, node, begunAt, settledAt, published } = one
      const at = room.got.get(n)
      const stay = room.stays.find(({ from, to }) => from < begunAt - 50 && to > settledAt + underWay)
      if (published !== undefined && node !== undefined && stay?.node === node && node.disturbedAt < begunAt) {
        if (at === undefined) faults.push(`${room.describe()} has not got ${n}, which its own node has published: ${JSON.stringify(published)}`)
        else if (at > begunAt + underWay) faults.push(`${room.describe()} has got ${n} of its own node only after ${at - begunAt} ms`)
      }
      if (at !== undefined || published !== true) continue
      if (stay?.node !== undefined && !isCut(stay.node, begunAt, settledAt + underWay)) faults.push(`${room.describe()} has not got ${n}, acknowledged, though its node ${stay.node.index} was not cut off`)
      if (room.joinedAt === undefined || begunAt < room.joinedAt + 50) continue
      // A member that was told is not told again until a message has come.
      const lastBefore = Math.max(-Infinity, ...arrivals.filter(at => at < begunAt))
      if (!room.told.some(at => at >= lastBefore)) faults.push(`${room.describe()} has not got ${n}, acknowledged, and was not told`)
    }
  }
  checkOrder(world, rooms, sent, resent)
}

/** All members see the messages of a node in one order. */
function checkOrder ({ fleet, faults }: World, rooms: readonly Watched[], sent: readonly Sent[], resent: ReadonlySet<number>): void {
  const nodes = new Map(sent.map(({ n, node }) => [n, node]))
  for (const topic of new Set(rooms.map(({ topic }) => topic))) {
    for (const node of fleet.nodes) {
      const seen = rooms.filter(room => room.topic === topic).map(room => ({ room, numbers: [...room.got.keys()].filter(n => nodes.get(n) === node && !resent.has(n)) }))
      const { numbers: all } = seen.reduce((most, one) => one.numbers.length > most.numbers.length ? one : most)
      const places = new Map(all.map((n, index) => [n, index]))
      for (const { room, numbers } of seen) {
        const known = numbers.filter(n => places.has(n))
        const wrong = known.findIndex((n, index) => index > 0 && places.get(n)! < places.get(known[index - 1]!)!)
        if (wrong > 0) faults.push(`${room.describe()} got ${known[wrong]} of node ${node.index} after ${known[wrong - 1]}, others got it before`)
      }
    }
  }
}

/** When all members have left, the server has the subscriptions of nodes alone. */
async function checkServer (fleet: Fleet<NatsFleetServer>, faults: string[]): Promise<void> {
  await checkNodes(fleet, faults)
  let left: string[] = []
  for (const end = Date.now() + 5_000; Date.now() < end;) {
    left = (await fleet.server.subjects()).filter(subject => /^rooms\.[tu]\./.test(subject))
    if (left.length === 0) return
    await new Promise(resolve => setTimeout(resolve, 200))
  }
  faults.push(`subscriptions are left: ${left.join(' ')}`)
}

function checkStats (node: FleetNode, { queuedBytes }: { queuedBytes: number }): void {
  if (queuedBytes > mostQueued) node.faults.push(`${queuedBytes} bytes are queued`)
}

/** A connection that is cut is told at once, unless the node is down already; silence is checked by its faults. */
export const overNats: Contract<NatsFleetServer> = {
  faults,
  isOncePerNode: true,
  topics: run => [`plain:${run}.1`, `plain:${run}.2`],
  topicsOf: (run, index) => [`plain:${run}.1`, ...index % 2 === 0 ? [`plain:${run}.2`] : []],
  checkRest (world, rooms, publisher, disturbances) {
    checkRest(world, rooms, publisher, disturbances)
    for (const { name, node, from, over } of disturbances) {
      if (!/connections of a node (?:end|are reset|are refused)/.test(name)) continue
      const wasDown = (node!.states.findLast(({ at }) => at < from)?.state ?? 'up') !== 'up'
      if (!wasDown && !node!.states.some(({ state, at }) => state !== 'up' && at >= from - 50 && at <= over + noticed)) world.faults.push(`node ${node!.index} says nothing of "${name}"`)
    }
  },
  checkServer,
  checkStats
}

export async function startNatsFleet (t: Test, options: FleetOptions): Promise<Fleet<NatsFleetServer>> {
  return Fleet.over(t, 'nats', await startNatsServer(t), { ...options, heartbeat: Math.min(options.heartbeat, 1_000) })
}

export function runOverNats (fleet: Fleet<NatsFleetServer>, options: ScheduleOptions<NatsFleetServer>): Promise<ScheduleResult> {
  return runScheduleOver(overNats, fleet, options)
}
