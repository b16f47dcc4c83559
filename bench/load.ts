// The load generator: one process for each run. The parent sends it a job, and it answers with figures.
import { readdirSync, readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Answer, Figures, Job, Node } from './job.ts'
import { EventStreamMember } from './event-stream.ts'
import { Polls, requests } from './http.ts'
import { Observers } from './observers.ts'
import { host, joinAll, Tally, type Receiver } from './receiver.ts'
import { Control, Member, now, publication } from './wire.ts'

/** Microseconds of a clock tick of /proc; 100 a second on every Linux that Node.js runs on. */
const tick = 10_000
const page = 4_096
/** A round that takes longer is broken. */
const patience = 30_000

/** User and system time of a process, all of its threads, in microseconds. */
function timesOf (pid: number): [user: number, system: number] {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return [Number(fields[11]) * tick, Number(fields[12]) * tick]
}

/** User and system time of a process in microseconds. */
function cpuOf (pid: number): number {
  const [user, system] = timesOf(pid)
  return user + system
}

/** CPU time as `cpuOf` reads it, but not rounded to ticks, for processes that use few of them. Threads that have ended are left out: Node.js ends none. */
function fineCpuOf (pid: number): number {
  const tasks = `/proc/${pid}/task`
  return readdirSync(tasks).reduce((sum, thread) => sum + Number(readFileSync(`${tasks}/${thread}/schedstat`, 'latin1').split(' ')[0]) / 1_000, 0)
}

/** The processes of a run that have members. */
const serversOf = ({ pid, others = [] }: Job): number[] => [pid, ...others.map(({ pid }) => pid)]

/** All processes of a run whose CPU time is that of its servers. A primary is the last one. */
const processesOf = (job: Job): number[] => [...serversOf(job), ...job.primary === undefined ? [] : [job.primary]]

/** The CPU time of all servers of a run, in microseconds. */
const spentBy = (job: Job): number => processesOf(job).reduce((sum, pid) => sum + cpuOf(pid), 0)

/** The system time of all servers of a run, in microseconds: what the kernel does for them. */
const systemTimeOf = (job: Job): number => processesOf(job).reduce((sum, pid) => sum + timesOf(pid)[1], 0)

function residentOf (pid: number): number {
  return Number(readFileSync(`/proc/${pid}/statm`, 'latin1').split(' ')[1]) * page
}

function timely<T> (promise: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => { timer = setTimeout(() => { reject(new Error(`${what}: nothing for ${patience / 1000} s`)) }, patience) })
  return Promise.race([promise, late]).finally(() => { clearTimeout(timer) })
}

function figures ({ units, micros, cpu }: Pick<Measured, 'units' | 'micros' | 'cpu'>): Figures {
  return { units, seconds: micros / 1e6, cpu: cpu / units, perSecond: units / (micros / 1e6) }
}

/** `cpu` is the time of all servers, `kernel` the system time in it, `busiest` the time of the process that used the most. */
interface Measured { units: number, rounds: number, micros: number, cpu: number, kernel: number, busiest: number, redis: number, primary: number }

/** Repeats rounds: warms up, then measures. */
async function repeat (job: Job, units: () => number, round: () => Promise<unknown>): Promise<Measured> {
  const { seconds, redis, warm = 0 } = job
  // Only these scenarios compare processes, and Bun, which ends threads, takes no part in them.
  const cpuOfEach = warm > 0 ? fineCpuOf : cpuOf
  const warmUp = now()
  const cold = serversOf(job).map(cpuOf)
  const isCold = (): boolean => warm > 0 && now() - warmUp < patience && serversOf(job).some((pid, index) => cpuOf(pid) - cold[index]! < warm * 1e6)
  while (now() - warmUp < seconds.warmUp * 1e6 || isCold()) await timely(round(), 'a round')
  const before = units()
  const cpuBefore = spentBy(job)
  const kernelBefore = systemTimeOf(job)
  const redisBefore = redis === undefined ? 0 : fineCpuOf(redis.pid)
  const eachBefore = processesOf(job).map(cpuOfEach)
  const start = now()
  let rounds = 0
  let cpu = 0
  let micros = 0
  while (cpu < seconds.cpu * 1e6 && micros < seconds.wall * 1e6) {
    await timely(round(), 'a round')
    rounds++
    cpu = spentBy(job) - cpuBefore
    micros = now() - start
  }
  const each = processesOf(job).map((pid, index) => cpuOfEach(pid) - eachBefore[index]!)
  return { units: units() - before, rounds, micros, cpu, kernel: systemTimeOf(job) - kernelBefore, busiest: Math.max(...each), redis: redis === undefined ? 0 : fineCpuOf(redis.pid) - redisBefore, primary: job.primary === undefined ? 0 : each.at(-1)! }
}

/** The figures of the process that bounds the throughput if each process has a core of its own. */
const bound = ({ units, busiest }: Measured): Pick<Figures, 'busiest' | 'capacity'> => ({ busiest: busiest / units, capacity: units / (busiest / 1e6) })

const message = { seq: 1, t: 0, user: 'u42', text: 'forty-two characters of text, give or take' }

async function members (job: Job, tally: Tally, count = job.members, rooms = job.rooms): Promise<Receiver[]> {
  const { protocol, port, others = [], deflate, stopped = 0, multiplexed } = job
  const ports = [port, ...others.map(({ port }) => port)]
  const topics = multiplexed === true ? Array.from({ length: rooms }, (_, index) => `room:${index}`) : undefined
  const Client = protocol === 'sse' ? EventStreamMember : Member
  // The members of each room are spread over all ports, and so are the first members of the rooms, which may publish.
  const portOf = (index: number): number => ports[(Math.floor(index / rooms) + index % rooms) % ports.length]!
  const joined = await joinAll<Receiver>(count, index => new Client({ protocol, port: portOf(index), room: `room:${index % rooms}`, tally, ...(deflate === true ? { deflate } : {}), ...(topics === undefined ? {} : { topics }) }))
  for (const { socket } of await joinAll(stopped, () => new Member({ protocol, port, room: 'room:0', tally: new Tally() }))) socket.pause()
  return joined
}

/** Waits for the subscriptions of a fleet: an adapter of socket.io lets members in before it has them. */
async function subscribed ({ redis }: Job): Promise<void> {
  if (redis !== undefined) await sleep(1_000)
}

/** Keeps one window of broadcasts outstanding: the next starts when every member has all of the last. */
async function rounds (job: Job): Promise<Figures> {
  const tally = new Tally()
  const control = new Control(job.control)
  const joined = await timely(members(job, tally), 'joining')
  await subscribed(job)
  const { publishers = 0, joins = 0 } = job
  const frame = publication(job.protocol, message, job.ref === true)
  const perBroadcast = job.multiplexed === true ? job.members : job.members / job.rooms - (job.except === true ? 1 : 0)
  const broadcasts = publishers > 0 ? publishers : job.rooms * job.window
  const acks = job.ref === true ? publishers : 0
  let deliveries = 0

  const publish = (): void => {
    if (publishers === 0) control.send(`b ${job.rooms} ${job.window}`)
    else for (let i = 0; i < publishers; i++) joined[i]!.socket.write(frame)
  }
  const round = async (): Promise<void> => {
    const all = tally.expect(broadcasts * perBroadcast + acks)
    publish()
    await all
    deliveries += broadcasts * perBroadcast
  }

  if (joins === 0) {
    const measured = await repeat(job, () => deliveries, round)
    const result = figures(measured)
    control.close()
    const compressed = tally.compressed / tally.received
    // Without compressed frames the scenario would measure something else.
    if (job.deflate === true && compressed < 0.9) throw new Error(`only ${Math.round(100 * compressed)} % of the frames came compressed`)
    const each = measured.rounds * broadcasts
    return { ...result, ...bound(measured), kernel: measured.kernel / measured.units, compressed, ...(job.redis === undefined ? {} : { redis: measured.redis / each }), ...(job.primary === undefined ? {} : { primary: measured.primary / each }) }
  }

  // Connections made beforehand are upgraded along with the broadcasts of a round; they are gone after it.
  const { protocol, port } = job
  const others = new Tally()
  const connectOthers = async (): Promise<Member[]> => {
    const made = Array.from({ length: joins }, () => new Member({ protocol, port, room: 'room:0', tally: others }))
    await Promise.all(made.map(member => member.connected()))
    return made
  }
  let waiting = await connectOthers()
  const churn = async (withBroadcasts: boolean): Promise<void> => {
    const joining = waiting
    const work: Promise<unknown>[] = []
    // Every second one before the broadcasts, the rest after them.
    joining.forEach((member, index) => { if (index % 2 === 0) work.push(member.join()) })
    if (withBroadcasts) work.push(round())
    joining.forEach((member, index) => { if (index % 2 === 1) work.push(member.join()) })
    const next = connectOthers()
    await Promise.all(work)
    for (const member of joining) member.destroy()
    waiting = await next
  }
  // The cost of the joins alone, at the same pace, is subtracted, because the question is how they affect the broadcasts.
  const alone = await repeat(job, () => 0, () => churn(false))
  // Messages that the joining members received count as deliveries.
  const { rounds, ...both } = await repeat(job, () => deliveries + others.received, () => churn(true))
  for (const member of waiting) member.destroy()
  control.close()
  return { ...figures({ ...both, cpu: both.cpu - rounds * alone.cpu / alone.rounds }), gross: both.cpu / both.units }
}

/** Every member is alone in its room, and sends its next message when the last has come back. */
async function echo (job: Job): Promise<Figures> {
  const tallies = Array.from({ length: job.members }, () => new Tally())
  const ports = [job.port, ...(job.others ?? []).map(({ port }) => port)]
  const joined = await timely(joinAll(job.members, index => new Member({ protocol: job.protocol, port: ports[index % ports.length]!, room: `room:${index}`, tally: tallies[index]! })), 'joining')
  const frame = publication(job.protocol, message, false)
  let echoes = 0
  let stopped = false
  let fail: (error: Error) => void = () => {}
  const failure = new Promise<never>((_resolve, reject) => { fail = reject })
  failure.catch(() => {})
  tallies.forEach((tally, index) => {
    tally.failed = error => { fail(error) }
    tally.target = 1
    tally.reached = () => {
      echoes++
      tally.target++
      if (!stopped) joined[index]!.socket.write(frame)
    }
  })
  for (const { socket } of joined) socket.write(frame)
  const measured = await repeat(job, () => echoes, () => Promise.race([sleep(50), failure]))
  stopped = true
  return { ...figures(measured), ...bound(measured), ...(job.primary === undefined ? {} : { primary: measured.primary / measured.units }) }
}

async function latency (job: Job): Promise<Figures> {
  const { rate = 50, seconds } = job
  const tally = new Tally()
  const control = new Control(job.control)
  await timely(members(job, tally), 'joining')
  await subscribed(job)
  const run = async (duration: number): Promise<number> => {
    const count = Math.round(duration * rate)
    const all = tally.expect(count * job.members)
    all.catch(() => {})
    const start = performance.now()
    for (let i = 0; i < count; i++) {
      const wait = start + i * 1000 / rate - performance.now()
      if (wait > 0) await sleep(wait)
      control.send(`t ${now()}`)
    }
    await timely(all, 'messages')
    return count * job.members
  }
  await run(seconds.warmUp)
  const duration = 5 * seconds.wall / 3
  tally.latencies = new Float64Array(Math.ceil(duration * rate + 1) * job.members)
  const cpu = spentBy(job)
  const start = now()
  const deliveries = await run(duration)
  const result = figures({ units: deliveries, micros: now() - start, cpu: spentBy(job) - cpu })
  const sorted = tally.latencies.subarray(0, tally.timed).sort()
  const percentile = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]! / 1000
  if (sorted.length < deliveries * 0.9) throw new Error(`only ${sorted.length} of ${deliveries} messages could be timed`)
  control.close()
  return { ...result, p50: percentile(0.5), p99: percentile(0.99) }
}

/** Batches before the measured ones. The code of a server that accepts connections is still being compiled after 10,000 of them: a connection costs 1.5 times as much as later. */
const connectWarmUp = 8

/** Connects in batches until there is enough CPU time to tell. Only connecting is measured, not the end of a batch. */
async function connecting (job: Job): Promise<Figures> {
  const { pid, seconds } = job
  let units = 0
  let micros = 0
  let cpu = 0
  for (let batch = 0; batch < connectWarmUp + 10 && cpu < seconds.cpu * 1e6 && micros < seconds.wall * 1e6; batch++) {
    const startCpu = cpuOf(pid)
    const start = now()
    const joined = await timely(members(job, new Tally()), 'joining')
    if (batch >= connectWarmUp) {
      micros += now() - start
      cpu += cpuOf(pid) - startCpu
      units += joined.length
    }
    for (const member of joined) member.destroy()
    // The server notices the ends before the next batch.
    await sleep(500)
  }
  return figures({ units, micros, cpu })
}

/** Joins by a frame on open connections, again and again. Only joining is measured, not the leave after it. */
async function joins (job: Job): Promise<Figures> {
  const { pid, port, protocol, seconds } = job
  const tally = new Tally()
  const open = await timely(joinAll(job.members, () => new Member({ protocol, port, room: '', tally, topics: [] })), 'connecting')
  let units = 0
  let micros = 0
  let cpu = 0
  for (let batch = 0; cpu < seconds.cpu * 1e6 && micros < seconds.wall * 1e6; batch++) {
    const hellos = tally.expect(open.length)
    const startCpu = cpuOf(pid)
    const start = now()
    for (const member of open) member.send({ type: 'join', topic: 'room:0' })
    await timely(hellos, 'joining')
    if (batch >= connectWarmUp) {
      micros += now() - start
      cpu += cpuOf(pid) - startCpu
      units += open.length
    }
    const acks = tally.expect(open.length)
    for (const member of open) member.send({ type: 'leave', topic: 'room:0', ref: 1 })
    await timely(acks, 'leaving')
  }
  return figures({ units, micros, cpu })
}

/** Opens one client that calls back for each message: that of the package, or a bare `ws` with JSON.parse. */
async function openClient ({ client, port }: Job, received: () => void): Promise<() => void> {
  const { WebSocket } = await import('ws')
  const url = `ws://127.0.0.1:${port}/r`
  if (client === 'ws') {
    const socket = new WebSocket(`${url}/room:0`)
    await new Promise(resolve => { socket.once('message', resolve) })
    socket.on('message', data => { if (JSON.parse(String(data)).type === 'message') received() })
    return () => { socket.terminate() }
  }
  const { createClient } = await import('../dist/lib/client/index.js' as string) as { createClient (options: object): any }
  const rooms = createClient({ url, WebSocket: WebSocket as never })
  const room = rooms.room('room:0')
  room.on('message', received)
  await new Promise<void>(resolve => { room.on('status', ({ status }: { status: string }) => { if (status === 'open') resolve() }) })
  return rooms.close
}

/** One client receives messages as fast as it can. The CPU time is that of the client's process, and not of the server. */
async function receiving (job: Job): Promise<Figures> {
  const control = new Control(job.control)
  let received = 0
  let expected = Infinity
  let reached = (): void => {}
  const close = await timely(openClient(job, () => { if (++received === expected) reached() }), 'joining')
  const round = (): Promise<void> => {
    expected = received + 1_000
    const all = new Promise<void>(resolve => { reached = resolve })
    control.send('b 1 1000')
    return timely(all, 'a round')
  }
  const { seconds } = job
  const warm = now()
  while (now() - warm < seconds.warmUp * 1e6) await round()
  const before = received
  const cpu = process.cpuUsage()
  const start = now()
  while (now() - start < seconds.wall * 1e6) await round()
  const micros = now() - start
  const { user, system } = process.cpuUsage(cpu)
  close()
  control.close()
  return figures({ units: received - before, micros, cpu: user + system })
}

/** Measures how much memory all members add to the server, garbage collected before and after. */
async function idle (job: Job): Promise<Figures> {
  const { pid } = job
  const control = new Control(job.control)
  // The first connections, however many, compile code and fill pools.
  for (const member of await timely(members(job, new Tally(), 500), 'joining')) member.destroy()
  await sleep(500)
  await control.collect()
  await sleep(500)
  const before = residentOf(pid)
  const cpu = cpuOf(pid)
  const start = now()
  const joined = await timely(members(job, new Tally()), 'joining')
  const result = figures({ units: joined.length, micros: now() - start, cpu: cpuOf(pid) - cpu })
  await sleep(1_000)
  await control.collect()
  await sleep(1_000)
  const bytes = (residentOf(pid) - before) / joined.length
  control.close()
  return { ...result, bytes }
}

async function post (job: Job): Promise<Figures> {
  const tally = new Tally()
  let fail: (error: Error) => void = () => {}
  const failure = new Promise<never>((_resolve, reject) => { fail = reject })
  failure.catch(() => {})
  tally.failed = error => { fail(error) }
  const client = requests(job.port, 64, JSON.stringify(message), tally)
  const result = figures(await repeat(job, () => tally.received, () => Promise.race([sleep(50), failure])))
  client.stop()
  return result
}

/** One drain: from the command to the end of the last connection. */
async function drain (job: Job): Promise<Figures> {
  const { pid } = job
  const control = new Control(job.control)
  const joined = await timely(members(job, new Tally()), 'joining')
  await control.collect()
  await sleep(1_000)
  const read = (): number => joined.reduce((sum, { socket }) => sum + socket.bytesRead, 0)
  const before = read()
  let open = joined.length
  const gone = new Promise<void>(resolve => {
    for (const member of joined) member.left = () => { if (--open === 0) resolve() }
  })
  const cpu = cpuOf(pid)
  const start = now()
  const [stall] = await timely(Promise.all([control.drain(), gone]), 'a drain')
  const micros = now() - start
  const result = figures({ units: joined.length, micros, cpu: cpuOf(pid) - cpu })
  control.close()
  return { ...result, took: micros / 1_000, stall, bytes: (read() - before) / joined.length }
}

/** Members of the second room, which get messages at a steady rate while others join the first. */
const observers = 50

/** The cost of joins in microseconds, and the latencies of other members meanwhile. */
interface Storm { cpu: number, micros: number, latencies: number[] }

/**
 * All members join in one turn of the load generator, on connections that are open, or connect and join at random times within `spread` milliseconds: first without a position, then with one behind which messages are kept. The
 * difference is the cost of these messages.
 */
async function storm (job: Job): Promise<Figures> {
  const { protocol, kept = 0, rate = 50, spread } = job
  // In a fleet the members come from a node that is gone: the messages were published on another one.
  const { pid, port } = job.others?.[0] ?? job
  const control = new Control(job.control)
  const since = await control.publish(kept)
  const others = await timely(Observers.join({ protocol, port, control: job.control, count: observers, room: 'room:1', rate }), 'joining')
  const join = async (count: number, replayed: number): Promise<Storm> => {
    const tally = new Tally()
    const made: Member[] = []
    const make = (): Member => {
      const member = new Member({ protocol, port, room: 'room:0', tally, ...(replayed > 0 ? { since } : {}) })
      made.push(member)
      return member
    }
    const comeBack = async (): Promise<void> => {
      await sleep(Math.random() * spread!)
      const member = make()
      await member.connected()
      await member.join()
    }
    // The kernel holds a few hundred connections that a server has not accepted.
    const ahead = spread === undefined ? count : 0
    while (made.length < ahead) {
      const some = Array.from({ length: Math.min(200, ahead - made.length) }, make)
      await timely(Promise.all(some.map(member => member.connected())), 'connecting')
    }
    await sleep(500)
    const all = replayed > 0 ? tally.expect(count * replayed) : Promise.resolve()
    await others.latencies()
    const cpu = cpuOf(pid)
    const start = now()
    const joins = spread === undefined ? made.map(member => member.join()) : Array.from({ length: count }, comeBack)
    await timely(Promise.all([...joins, all]), 'a storm')
    const micros = now() - start
    await sleep(100) // messages to the other members that are under way
    const result = { cpu: cpuOf(pid) - cpu, micros, latencies: await others.latencies() }
    for (const member of made) member.destroy()
    await sleep(1_500)
    return result
  }
  for (const replayed of [0, kept]) await join(Math.ceil(job.members / 2), replayed)
  await control.collect()
  await sleep(500)
  await others.latencies()
  await sleep(2_000)
  const calm: Storm = { cpu: 0, micros: 0, latencies: await others.latencies() }
  const plain: Storm[] = []
  const replaying: Storm[] = []
  for (let n = 0; n < 2; n++) {
    plain.push(await join(job.members, 0))
    replaying.push(await join(job.members, kept))
  }
  others.end()
  control.close()
  const sum = (storms: Storm[], figure: 'cpu' | 'micros'): number => storms.reduce((total, storm) => total + storm[figure], 0)
  const percentile = (storms: Storm[], share: number): number => {
    const sorted = storms.flatMap(({ latencies }) => latencies).sort((a, b) => a - b)
    return sorted[Math.floor(sorted.length * share)]! / 1_000
  }
  const units = replaying.length * job.members * kept
  return {
    ...figures({ units, micros: sum(replaying, 'micros'), cpu: sum(replaying, 'cpu') - sum(plain, 'cpu') }),
    gross: sum(replaying, 'cpu') / units,
    p50: percentile(replaying, 0.5),
    p99: percentile(replaying, 0.99),
    joinsP99: percentile(plain, 0.99),
    calmP99: percentile([calm], 0.99)
  }
}

/** Bytes that a Redis server uses. */
async function usedBy ({ port }: Node): Promise<number> {
  const socket = connect(port, host)
  try {
    socket.write('INFO memory\r\n')
    let text = ''
    for await (const chunk of socket) {
      text += chunk
      const used = /^used_memory:(\d+)\r/m.exec(text)?.[1]
      if (used !== undefined) return Number(used)
    }
  } finally {
    socket.destroy()
  }
  throw new Error('Redis does not tell its memory')
}

/** The memory of kept messages: of the server, or of Redis if that keeps them. */
async function memory ({ pid, rooms, kept = 0, redis, ...job }: Job): Promise<Figures> {
  const control = new Control(job.control)
  const cpu = cpuOf(pid)
  const before = redis === undefined ? 0 : await usedBy(redis)
  const start = now()
  const [grown, content] = await timely(control.fill(rooms, kept), 'filling')
  const bytes = redis === undefined ? grown : await usedBy(redis) - before
  const result = figures({ units: rooms * kept, micros: now() - start, cpu: cpuOf(pid) - cpu })
  control.close()
  return { ...result, bytes, share: bytes / content }
}

/** Requests that wait, answered by one message, again and again. */
async function polls (job: Job): Promise<Figures> {
  const control = new Control(job.control)
  const tally = new Tally()
  const client = new Polls(job.port, job.members, tally)
  await timely(client.connected(), 'connecting')
  client.id = await control.publish(0)
  let answers = 0
  const round = async (): Promise<void> => {
    const all = tally.expect(job.members)
    client.wait()
    await control.waiting(job.members)
    control.send('b 1 1')
    await all
    answers += job.members
  }
  const result = figures(await repeat(job, () => answers, round))
  client.stop()
  control.close()
  return result
}

const kinds = { client: receiving, joins, storm, memory, polls, rounds, echo, latency, connect: connecting, idle, post, drain }

process.once('message', (job: Job) => {
  const answer = (answer: Answer): void => { process.send!(answer, () => { process.exit(0) }) }
  kinds[job.kind](job).then(result => { answer({ figures: result }) }, (error: Error) => { answer({ error: error.message }) })
})
process.once('disconnect', () => { process.exit(0) })
