import { setTimeout as sleep } from 'node:timers/promises'
import { nodeOf } from '../../lib/fleet/node-id.ts'
import { random as numbersFrom } from '../helpers/random.ts'
import { grace, hasPresence } from './brokers.ts'
import { checkForgotten, checkServer } from './checks.ts'
import type { Fleet, FleetNode } from './fleet.ts'
import { Member, type Stay, type Watched, type World } from './members.ts'
import type { UserEvent } from './node.ts'
import { expectedEvents, type Piece } from './users.ts'

/** Milliseconds for all members to be back. A client that has lost several connections within its heartbeat waits for up to 20 s. */
const patience = 45_000
/** Milliseconds within which a session that a client sees is noted in the server, and one that has left is removed, on a busy machine. */
const latency = 500
const tail = 1_500
/**
 * Milliseconds in which the scripts of the server are counted when a node comes back. It says once who is there: one script for each of its users and topics, some for
 * each partition to forget what it had noted as another incarnation, and few readings of each topic by each node.
 */
const watch = 2_000
const partitions = 64
/** Calls of hooks within this time before a kill may be lost with their node. */
const lostWithin = 1_000

export interface KillsOptions {
  readonly seed: number
  /** Nodes that are killed, terminated or suspended, one after the other. */
  readonly kills: number
  readonly users: number
  /** Milliseconds of a suspension, least and most. */
  readonly suspension: readonly [number, number]
  /** The first faults. Default: a choice of the seed. */
  readonly first?: readonly Kind[]
  /** When no further fault begins, on the clock of `Date`. */
  readonly end?: number
}

type Kind = 'kill' | 'kill two' | 'terminate' | 'suspend'

export interface KillsResult {
  readonly faults: string[]
  readonly events: string[]
  readonly counts: {
    kills: number
    /** Joins and leaves of users that hooks were told. */
    joins: number
    leaves: number
    /** Most milliseconds until no node named a member of a node that had gone. */
    gone: number
    /** Most scripts that the server ran when a node had come back. */
    scripts: number
  }
}

/** A node that was killed, terminated or suspended. */
interface Disruption {
  readonly kind: Exclude<Kind, 'kill two'>
  readonly node: FleetNode
  readonly at: number
  /** When it was resumed; `Infinity` if it was not suspended. */
  over: number
  /** When the other nodes did not name its members any more; `Infinity`: not while it was suspended. */
  clearedAt: number
  /** When all nodes agreed again. */
  agreedAt: number
}

interface Person { readonly user: string, readonly devices: Member[], readonly rooms: Watched[] }

/** The state of a fleet as its clients see it. */
interface Truth {
  /** Rooms that are to be open, and are not. */
  readonly missing: Watched[]
  /** By topic: the sessions of its members, and its users, in order. */
  readonly sessions: Map<string, string[]>
  readonly users: Map<string, string[]>
}

/** Runs faults of nodes on a fleet with members, and looks after each one who is said to be there, and how often users were said to join and leave. */
export async function runKills (fleet: Fleet, options: KillsOptions): Promise<KillsResult> {
  const { seed, kills, users: size, suspension, first = [], end = Infinity } = options
  const { every, ttl } = fleet.options.times
  /** Milliseconds for members of a node that was killed to be gone: with the times that users have by default, 30 s. */
  const goneWithin = ttl + 2 * every + 5_000
  const random = numbersFrom(seed)
  const faults: string[] = []
  const events: string[] = []
  const begin = Date.now()
  const note = (text: string): void => { events.push(`${Date.now() - begin} ms: ${text}`) }
  const counts: KillsResult['counts'] = { kills: 0, joins: 0, leaves: 0, gone: 0, scripts: 0 }
  const world: World = { fleet, faults, random, seen: new Map(), losesData: false, refuses: false }
  for (const node of fleet.nodes) node.faults.length = 0
  const topics = ['lobby', 'party', 'plain'].map(name => `${name}:${seed}.${begin}`)
  const people: Person[] = []
  let devices = 0
  /** Scripts that the server runs within `watch` if nothing happens. */
  let idle = 0

  const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)]!
  const arrive = (person: Person): void => {
    const index = people.indexOf(person)
    // Some people have two devices, and some are in one topic alone.
    for (let n = 0; n < (index % 4 === 0 ? 2 : 1); n++) {
      const device = new Member(world, devices++, index % 5 === 1 ? topics.slice(0, 1) : topics, person.user)
      person.devices.push(device)
      person.rooms.push(...device.rooms)
    }
  }
  const depart = (person: Person): void => {
    for (const { client } of person.devices.splice(0)) client.close()
    const now = Date.now()
    for (const { stays } of person.rooms) for (const stay of stays) stay.to = Math.min(stay.to, now)
  }

  /** @param without - suspended: members on it count as gone */
  const truth = (without?: FleetNode): Truth => {
    const open = people.flatMap(({ user, devices }) => devices.flatMap(({ rooms }) => rooms.filter(({ stays }) => without === undefined || stays.at(-1)?.node !== without || stays.at(-1)!.to !== Infinity).map(room => ({ user, room }))))
    const of = (topic: string): typeof open => open.filter(({ room }) => room.topic === topic && room.isOpen)
    return {
      missing: open.filter(({ room }) => !room.isOpen).map(({ room }) => room),
      sessions: new Map(topics.map(topic => [topic, of(topic).map(({ room }) => room.room.getSnapshot().session!).sort()])),
      users: new Map(topics.map(topic => [topic, [...new Set(of(topic).map(({ user }) => user))].sort()]))
    }
  }

  /** Differences between the clients, and what nodes and clients say of each other. */
  const differences = async (without?: FleetNode): Promise<string[]> => {
    const nodes = fleet.nodes.filter(({ isHealthy }) => isHealthy)
    const views = await Promise.all(nodes.map(node => node.presence(topics)))
    const { missing, sessions, users } = truth(without)
    // An attempt that the suspended node has not answered takes 10 s.
    const found = (without === undefined ? missing : []).slice(0, 3).map(room => `${missing.length} rooms are not open: ${room.describe()}`)
    nodes.forEach(({ index }, n) => topics.forEach((topic, at) => {
      const view = views[n]![at]!
      const real = sessions.get(topic)!
      if (view.count !== real.length) found.push(`node ${index} counts ${view.count} members of ${topic}, ${real.length} are there`)
      if (!hasPresence(topic)) return
      if (view.sessions.join() !== real.join()) found.push(`node ${index} lists ${different(view.sessions, real)} in ${topic}`)
      if (view.users.join() !== users.get(topic)!.join()) found.push(`node ${index} lists the users ${different(view.users, users.get(topic)!)} in ${topic}`)
    }))
    for (const room of people.flatMap(({ devices }) => devices.flatMap(({ rooms }) => rooms))) {
      if (!hasPresence(room.topic) || !room.isOpen || room.stays.at(-1)?.node === without) continue
      const shown = room.room.getSnapshot().members?.map(({ session }) => session).sort() ?? []
      if (shown.join() !== sessions.get(room.topic)!.join()) found.push(`${room.describe()} shows ${different(shown, sessions.get(room.topic)!)}`)
    }
    return found
  }

  /** Waits until all agree. Returns whether they do. @param gone - told when no node names a member of these nodes any more */
  const rest = async (what: string, milliseconds: number, without?: FleetNode, gone?: { readonly ids: ReadonlySet<string>, clear (): void }): Promise<boolean> => {
    const giveUp = Date.now() + milliseconds
    let isClear = gone === undefined
    while (true) {
      if (!isClear) {
        const views = await Promise.all(fleet.nodes.filter(({ isHealthy }) => isHealthy).map(node => node.presence(topics)))
        isClear = !views.flat().some(({ sessions }) => sessions.some(session => gone!.ids.has(nodeOf(session) ?? '')))
        if (isClear) gone!.clear()
      }
      const found = await differences(without)
      if (isClear && found.length === 0) return true
      if (Date.now() > giveUp) {
        faults.push(...found.slice(0, 6).map(text => `${what}: after ${milliseconds} ms ${text}`))
        return false
      }
      await sleep(100)
    }
  }

  const told = (): UserEvent[] => fleet.nodes.flatMap(({ users }) => users)

  /** Compares what hooks were told in a round with what has happened. */
  const checkEvents = async (what: string, from: number, before: Truth, disruptions: readonly Disruption[]): Promise<void> => {
    const now = Date.now()
    const after = truth()
    const expected = people.flatMap(({ user, rooms }) => topics.filter(hasPresence).map(topic => {
      const own = rooms.filter(room => room.topic === topic)
      const hold = topic.startsWith('party:') ? grace : 0
      const pieces = own.flatMap(room => piecesOf(room, disruptions, { every, ttl, hold }))
      const lost = { joins: 0, leaves: 0 }
      for (const { at, node } of disruptions.filter(({ kind }) => kind === 'kill')) {
        for (const room of own) {
          if (!room.stays.some(stay => stay.from < at && stay.to >= at)) {
            lost.joins++
            lost.leaves++
          }
          for (const stay of room.stays.filter(stay => stay.node === node && stay.from < at)) {
            if (stay.from > at - lostWithin) lost.joins++
            if (stay.to < at && stay.to > at - lostWithin - hold) lost.leaves++
          }
        }
      }
      const change = Number(after.users.get(topic)!.includes(user)) - Number(before.users.get(topic)!.includes(user))
      return { user, topic, lost, change, pieces, ...expectedEvents(pieces, from, now) }
    }))
    const wrong = (): string[] => {
      const all = told()
      return expected.flatMap(({ user, topic, lost, change, joins, leaves, pieces }) => {
        const [came, left] = (['join', 'leave'] as const).map(event => all.filter(one => one.event === event && one.user === user && one.topic === topic).length) as [number, number]
        const isRight = came >= joins.least - lost.joins && came <= joins.most && left >= leaves.least - lost.leaves && left <= leaves.most && Math.abs(came - left - change) <= lost.joins + lost.leaves
        return isRight ? [] : [`${user} in ${topic} joined ${came} times, and left ${left} times; expected ${joins.least} to ${joins.most} and ${leaves.least} to ${leaves.most}, a change of ${change}; may be lost: ${JSON.stringify(lost)}; ${JSON.stringify(pieces.map(({ possible, certain }) => [possible, certain].map(times => times?.map(time => time - begin))))}`]
      })
    }
    for (const end = Date.now() + 3_000; wrong().length > 0 && Date.now() < end;) await sleep(50)
    const found = wrong()
    faults.push(...found.slice(0, 4).map(text => `${what}: ${found.length} users: ${text}`))
  }

  const clear = (): void => {
    const all = told()
    counts.joins += all.filter(({ event }) => event === 'join').length
    counts.leaves += all.filter(({ event }) => event === 'leave').length
    for (const { users } of fleet.nodes) users.length = 0
  }

  /** Some people come, leave, or lose their connection, within 2 s. */
  const move = (): Promise<unknown> => Promise.all(Array.from(new Set(Array.from({ length: 6 }, () => pick(people))), async person => {
    const action = random()
    await sleep(random() * 2_000)
    if (person.devices.length === 0) arrive(person)
    else if (action < 0.5) depart(person)
    else person.devices[0]!.cut()
  }))

  const round = async (number: number): Promise<void> => {
    const chance = random()
    const kind: Kind = first[number] ?? (chance < 0.55 ? 'kill' : chance < 0.65 ? 'kill two' : chance < 0.85 ? 'terminate' : 'suspend')
    // A node with members: those of a node that was started again come with time.
    const node = pick(people.flatMap(({ devices }) => devices)).rooms[0]!.stays.at(-1)!.node!
    const other = pick(fleet.nodes.filter(other => other !== node))
    const victims = kind === 'kill two' ? [node, other] : [node]
    const what = `${number + 1}: ${kind} ${victims.map(({ index }) => index).join(' and ')}`
    note(what)
    const from = Date.now()
    const before = truth()
    clear()
    let movedAt = 0
    const moved = random() < 0.7 ? move().then(() => { movedAt = Date.now() }) : undefined
    await sleep(moved === undefined ? 0 : 1_000)
    const disruptions: Disruption[] = []
    const ids = new Set(victims.map(({ ids }) => ids.at(-1)!))
    for (const victim of victims) {
      // The second one goes before a node can have begun to remove the members of the first one.
      if (victim !== node) await sleep(random() * (ttl - every) / 2)
      const disruption: Disruption = { kind: kind === 'kill two' ? 'kill' : kind, node: victim, at: Date.now(), over: Infinity, clearedAt: Infinity, agreedAt: Infinity }
      disruptions.push(disruption)
      if (kind === 'suspend') victim.suspend()
      else if (kind === 'terminate') await victim.terminate()
      else await victim.kill()
    }
    counts.kills++
    const at = disruptions.at(-1)!.at
    const gone = {
      ids,
      clear: () => {
        counts.gone = Math.max(counts.gone, Date.now() - at)
        note(`no node names a member of it after ${Date.now() - at} ms`)
        if (Date.now() - at > goneWithin) faults.push(`${what}: its members were gone after ${Date.now() - at} ms`)
      }
    }
    if (kind === 'suspend') {
      const length = suspension[0] + random() * (suspension[1] - suspension[0])
      const [disruption] = disruptions as [Disruption]
      await moved
      if (length > goneWithin) {
        await rest(what, at + length - Date.now(), node, gone)
        disruption.clearedAt = Date.now()
      }
      await sleep(Math.max(0, at + length - Date.now()))
      const users = people.filter(({ rooms }) => rooms.some(({ stays }) => stays.at(-1)?.node === node && stays.at(-1)!.to === Infinity)).length
      const most = idle + 4 * partitions + 2 * users + 4 * topics.length * fleet.nodes.length
      const begun = await scriptsOf(fleet)
      disruption.over = Date.now()
      node.resume()
      await sleep(watch)
      const first = await scriptsOf(fleet) - begun
      await rest(what, patience)
      disruption.agreedAt = Date.now()
      const rested = await scriptsOf(fleet)
      await sleep(watch)
      const later = await scriptsOf(fleet) - rested
      counts.scripts = Math.max(counts.scripts, first)
      note(`it is back after ${Math.round(length)} ms with ${users} users: in ${watch} ms the server ran ${first} scripts, later ${later}, at rest ${idle}`)
      if (first > most) faults.push(`${what}: in the first ${watch} ms after it came back the server ran ${first} scripts; expected ${most} at most`)
      if (later > 2 * idle + 20) faults.push(`${what}: after it had come back the server ran ${later} scripts in ${watch} ms, in place of ${idle}`)
    } else {
      const delay = random() * 2 * every
      await Promise.all([
        rest(what, patience, undefined, gone).then(() => { for (const disruption of disruptions) disruption.agreedAt = Date.now() }),
        ...victims.map(async victim => {
          await sleep(delay)
          await victim.start()
        })
      ])
      await moved
      await rest(`${what}, started again`, patience)
    }
    // Leaves that are held are told meanwhile.
    await sleep(Math.max(0, Math.max(movedAt, disruptions[0]!.agreedAt) + grace + latency - Date.now()))
    await checkEvents(what, from, before, disruptions)
    note('all agree, and users were told of once')
    faults.push(...fleet.faults.map(text => `${what}: ${text}`))
    for (const node of fleet.nodes) node.faults.length = 0
    for (const { rooms, devices } of people) {
      const now = new Set(devices.flatMap(({ rooms }) => rooms))
      for (const room of rooms.splice(0)) if (now.has(room)) rooms.push(room)
      for (const { stays } of rooms) stays.splice(0, stays.length - 1)
    }
  }

  try {
    for (let n = 0; n < size; n++) people.push({ user: `user ${n}`, devices: [], rooms: [] })
    const nobody = truth()
    for (const person of people) if (random() < 0.8) arrive(person)
    if (!await rest('at the beginning', patience)) return result()
    note('all members have joined')
    await sleep(latency)
    await checkEvents('at the beginning', begin, nobody, [])
    idle = -await scriptsOf(fleet)
    await sleep(watch)
    idle += await scriptsOf(fleet)
    for (let number = 0; number < kills && faults.length === 0 && Date.now() < end; number++) await round(number)
    clear()
    const before = truth()
    const from = Date.now()
    for (const person of people) depart(person)
    await rest('at the end', 8_000)
    await sleep(grace + latency)
    await checkEvents('at the end', from, before, [])
    clear()
    note('all members have left')
  } finally {
    for (const { devices } of people) for (const { client } of devices) client.close()
    for (const node of fleet.nodes) if (node.isSuspended) node.resume()
  }
  await checkServer(fleet, faults)
  await checkForgotten(fleet, faults)
  note('nodes and server keep nothing of them')
  return result()

  function result (): KillsResult { return { faults: [...new Set(faults)].map(text => `seed ${seed}: ${text}`), events, counts } }
}

const different = (has: readonly string[], needs: readonly string[]): string => `without ${needs.filter(id => !has.includes(id)).join()}, with ${has.filter(id => !needs.includes(id)).join()} (${has.length} of ${needs.length})`

/** How many scripts the server has run. All calls of nodes are scripts, but for those of new connections. */
async function scriptsOf (fleet: Fleet): Promise<number> {
  const text = await fleet.server.command('INFO', 'commandstats')
  return Array.from(text.matchAll(/^cmdstat_eval(?:sha)?:calls=(\d+)/gm), ([, calls]) => Number(calls)).reduce((sum, calls) => sum + calls, 0)
}

/**
 * The presence of a room's stays as the fleet may see it.
 * @param hold - milliseconds for which a leave is held
 */
function piecesOf ({ stays }: Watched, disruptions: readonly Disruption[], times: { readonly every: number, readonly ttl: number, readonly hold: number }): Piece[] {
  const pieces = stays.flatMap(stay => piecesOfStay(stay, disruptions.find(({ node, at, over }) => node === stay.node && stay.from < Math.max(at, over === Infinity ? at : over) && stay.to > at - lostWithin - times.hold), times))
  // A node may have had a session of which the client knows nothing.
  for (const { at, agreedAt } of disruptions) {
    if (!stays.some(stay => stay.from < at && stay.to >= at)) pieces.push({ possible: [at - lostWithin, agreedAt + times.hold], certain: undefined })
  }
  return pieces
}

function piecesOfStay ({ from, to }: Stay, disruption: Disruption | undefined, { every, ttl, hold }: { readonly every: number, readonly ttl: number, readonly hold: number }): Piece[] {
  const piece = (possible: readonly [number, number], certain: readonly [number, number]): Piece => ({ possible, certain: certain[0] < certain[1] ? certain : undefined })
  const normalEnd = to + hold + tail
  const heldEnd = to + Math.max(0, hold - 50)
  if (disruption === undefined) return [piece([from - latency, normalEnd], [from + latency, heldEnd])]
  const { kind, at, over, clearedAt, agreedAt } = disruption
  /** Nodes do not take it for dead before. */
  const lives = at + ttl - every - latency
  if (kind === 'terminate') return [piece([from - latency, agreedAt], [from + latency, Math.min(heldEnd, at)])]
  if (kind === 'kill') return [piece([from - latency, agreedAt], from > at - latency ? [0, 0] : [from + latency, Math.min(to < at ? heldEnd : Infinity, lives)])]
  if (over < lives) return [piece([from - latency, Math.max(normalEnd, agreedAt + hold)], [from + latency, heldEnd])]
  const first = piece([from - latency, Math.min(clearedAt, over)], [from + latency, Math.min(heldEnd, lives)])
  return [first, to > agreedAt ? piece([over, normalEnd], [agreedAt, heldEnd]) : { possible: [over, agreedAt + hold], certain: undefined }]
}
