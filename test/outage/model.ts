import { setTimeout as sleep } from 'node:timers/promises'
import { random as numbersFrom } from '../helpers/random.ts'
import { checkLobby, checkOrder, checkRest, checkServer } from './checks.ts'
import { faults as allFaults, type Fault } from './faults.ts'
import type { Fleet, FleetNode, FleetServer } from './fleet.ts'
import type { RedisServer } from '../helpers/redis-server.ts'
import { Member, type Watched, type World } from './members.ts'
import { MemoryWatch } from './memory.ts'
import { Publisher } from './publisher.ts'

/** Milliseconds for a node to be up after its broker is back: 2 s, and many for a busy machine. */
export const backWithin = 8_000
/** Schedules with faults of this many milliseconds may have one of half a minute. */
const longLength = 5_000

/** Most publications that wait on a node: those of 5 s at 200 a second, the rate of the fastest schedule, whose nodes share them. */
const mostQueued = 1_000

/** A fault that has happened. Times are on the clock of `Date`. */
export interface Disturbance {
  readonly name: string
  /** The node that was cut off or gone; `undefined`: all are. */
  readonly node: FleetNode | undefined
  readonly from: number
  /** When the cause was gone. */
  readonly over: number
}

/** The topics and faults of a broker, and the checks that must hold over it. */
export interface Contract<S extends FleetServer> {
  readonly faults: readonly Fault<S>[]
  readonly isOncePerNode?: boolean
  /** The topics to which messages are published, and those of one member, by the name of the run. */
  topics (run: string): readonly string[]
  topicsOf (run: string, index: number): readonly string[]
  /** Compares each member with what was published. */
  checkRest (world: World, rooms: readonly Watched[], publisher: Publisher, disturbances: readonly Disturbance[]): void
  /** Looks what nodes and server keep when all members have left. */
  checkServer (fleet: Fleet<S>, faults: string[]): Promise<void>
  /** Called once a second during a fault, and after it, with all that nodes say of themselves. */
  checkStats (node: FleetNode, stats: any): void
}

const overRedis: Contract<RedisServer> = {
  faults: allFaults,
  topics: run => [`log:${run}.1`, `log:${run}.2`, `short:${run}`, `plain:${run}`],
  topicsOf: (run, index) => [`log:${run}.1`, `log:${run}.2`, ...index % 2 === 0 ? [`short:${run}`, `plain:${run}`] : [], ...index % 8 === 0 ? [`lobby:${run}`] : []],
  checkRest,
  checkServer,
  checkStats (node, { queued }) { if (queued > mostQueued) node.faults.push(`${queued} publications are queued`) }
}

export interface ScheduleOptions<S extends FleetServer = RedisServer> {
  readonly seed: number
  readonly members: number
  /** How many faults follow each other. */
  readonly faults: number
  /** Most milliseconds of a fault, if that can be chosen. */
  readonly length: number
  /** Each fault lasts so long. */
  readonly isExact?: boolean
  /** Publications per second. */
  readonly rate: number
  /** The faults to choose from. Default: all that the fleet can have. */
  readonly only?: (fault: Fault<S>) => boolean
  /** Milliseconds of publications before the first fault. Default 200. */
  readonly warmUp?: number
  /** Milliseconds for all members to be back, and for them to have the last message. Default 45,000. */
  readonly patience?: number
}

export interface ScheduleResult {
  readonly faults: string[]
  /** Events of the schedule, in order. */
  readonly events: string[]
  readonly counts: {
    messages: number
    acknowledged: number
    refused: number
    told: number
    recovered: number
    /** Most MiB by which a node grew during a fault. */
    grown: number
  }
}

/** Waits until a condition holds. Returns whether it does. */
export async function holds (condition: () => boolean, milliseconds: number): Promise<boolean> {
  const end = Date.now() + milliseconds
  while (!condition()) {
    if (Date.now() > end) return false
    await sleep(20)
  }
  return true
}

/** A server that has refused something leaves its nodes degraded until the next probe. */
function isBack ({ state }: FleetNode): boolean {
  return state === 'up' || state === 'degraded'
}

function chosen<S extends FleetServer> (fleet: Fleet<S>, allFaults: readonly Fault<S>[], { seed, faults: count, length, only = () => true }: ScheduleOptions<S>, random: () => number): Fault<S>[] {
  const { isInside } = fleet.options
  const possible = allFaults.filter(fault => only(fault) && (isInside !== true || fault.needsProcesses !== true) && (length >= longLength || fault.isLong !== true))
  // Seeds one after the other begin with different faults, so that a few of them have all.
  return Array.from({ length: count }, (_, n) => possible[n === 0 ? seed % possible.length : Math.floor(random() * possible.length)]!)
}

/**
 * Runs one schedule on a fleet: members on all nodes, messages all the time, one fault after the other. At the end all is well again, and each member is compared with what
 * was acknowledged.
 */
export function runSchedule (fleet: Fleet, options: ScheduleOptions): Promise<ScheduleResult> {
  return runScheduleOver(overRedis, fleet, options)
}

export async function runScheduleOver<S extends FleetServer> (contract: Contract<S>, fleet: Fleet<S>, options: ScheduleOptions<S>): Promise<ScheduleResult> {
  const { seed, members: size, length, rate, patience = 45_000, warmUp = 200 } = options
  const random = numbersFrom(seed)
  const plan = chosen(fleet, contract.faults, options, random)
  const found: string[] = []
  const events: string[] = []
  const begin = Date.now()
  const note = (text: string): void => { events.push(`${Date.now() - begin} ms: ${text}`) }
  const world: World = { fleet, faults: found, random, seen: new Map(), losesData: plan.some(({ losesData }) => losesData === true), refuses: plan.some(({ refuses }) => refuses === true), isOncePerNode: contract.isOncePerNode === true }
  for (const node of fleet.nodes) node.faults.length = 0
  const run = `${seed}.${begin}`
  const disturbances: Disturbance[] = []

  const members = Array.from({ length: size }, (_, index) => new Member(world, index, contract.topicsOf(run, index)))
  const rooms = members.flatMap(({ rooms }) => rooms)
  const publisher = new Publisher(world, contract.topics(run), members)
  const cut = (share: number): void => { for (const member of members) if (random() < share) member.cut() }
  const checkStats = async (): Promise<void> => { for (const node of fleet.nodes) if (node.isHealthy) contract.checkStats(node, await node.stats()) }
  let grown = 0
  let hasEnded = false
  try {
    if (!await holds(() => rooms.every(({ isOpen }) => isOpen), patience)) {
      found.push('not all members join', ...describe(rooms.filter(({ isOpen }) => !isOpen)))
      return result()
    }
    note('all members have joined')
    publisher.start(rate)
    await sleep(warmUp)
    for (const fault of plan) {
      const node = fleet.nodes[Math.floor(random() * fleet.nodes.length)]!
      const milliseconds = Math.round(length * (options.isExact === true ? 1 : 0.2 + 0.8 * random()))
      note(`${fault.name}${fault.isOfNode === true ? ` (node ${node.index})` : ''}, ${milliseconds} ms`)
      const from = Date.now()
      const memory = new MemoryWatch(fleet.nodes)
      const timer = setInterval(() => { checkStats().catch(() => {}) }, 1_000) // a node may end meanwhile
      await fault.run(fleet, node, milliseconds, random, cut)
      clearInterval(timer)
      const growth = memory.stop(fault.name)
      grown = Math.max(grown, growth)
      note(`it is over; nodes have grown by ${Math.round(growth / 1_048_576)} MiB at most`)
      const over = Date.now()
      disturbances.push({ name: fault.name, node: fault.isOfNode === true ? node : undefined, from, over })
      await checkStats()
      if (random() < 0.3) cut(0.2)
      if (random() < 0.6) {
        if (!await holds(() => fleet.nodes.every(isBack), backWithin)) found.push(...fleet.nodes.filter(node => !isBack(node)).map(({ index, states }) => `node ${index} is not up ${Date.now() - over} ms after "${fault.name}" is over: ${JSON.stringify(states.slice(-3))}`))
        await sleep(random() * 500)
      }
    }
    for (const { proxy } of fleet.nodes) await proxy.heal()
    if (!await holds(() => fleet.nodes.every(isBack), backWithin)) found.push(`nodes are not up: ${JSON.stringify(fleet.nodes.map(({ states }) => states.slice(-3)))}`)
    note('all nodes are up')
    await publisher.stop()
    note('all publications have settled')
    await sleep(1_000)
    if (!await holds(() => rooms.every(({ isOpen }) => isOpen), patience)) found.push('not all members are back', ...describe(rooms.filter(({ isOpen }) => !isOpen)))
    note('all members are back')
    await publisher.finish()
    const last = publisher.last
    const isDone = ({ topic, got, room, told, cursor }: Watched): boolean => {
      if (topic.startsWith('lobby:')) return true
      const { recovered, gap } = room.getSnapshot()
      const { n, id } = last.get(topic)!
      return topic.startsWith('plain:') ? got.has(n) : cursor === id && (told.length === 0 || (recovered && gap === null))
    }
    if (!await holds(() => rooms.every(isDone), patience)) found.push(...describe(rooms.filter(room => !isDone(room))).map(text => `it does not get the last message: ${text}`))
    note('all members have the last message')
    contract.checkRest(world, rooms, publisher, disturbances)
    checkOrder(world, rooms, publisher)
    await checkLobby(world, rooms.filter(({ topic }) => topic.startsWith('lobby:')))
    hasEnded = true
  } finally {
    await publisher.stop()
    for (const { client } of members) client.close()
    for (const node of fleet.nodes) if (node.isSuspended) node.resume()
  }
  if (hasEnded) await contract.checkServer(fleet, found)
  return result()

  function result (): ScheduleResult {
    found.push(...fleet.faults)
    const sum = (count: (room: Watched) => number): number => rooms.reduce((sum, room) => sum + count(room), 0)
    return {
      faults: [...new Set(found)].map(text => `seed ${seed}: ${text}`),
      events,
      counts: {
        messages: sum(({ got }) => got.size),
        acknowledged: publisher.acknowledged.length,
        refused: publisher.refused,
        told: sum(({ told }) => told.length),
        recovered: sum(({ room }) => Math.max(0, room.log().filter(({ status }) => status === 'open').length - 1)),
        grown: Math.round(grown / 1_048_576)
      }
    }
  }
}

/** Some rooms in words. */
function describe (rooms: Watched[]): string[] {
  return [...rooms.slice(0, 3).map(room => room.describe()), ...rooms.length > 3 ? [`… ${rooms.length} in all`] : []]
}
