import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import t from 'tap'
import { memoryBroker } from '../../lib/brokers/memory.ts'
import { Hub } from '../../lib/hub/hub.ts'
import { payloadCompiler, schemaCompiler } from '../../lib/topics/payload.ts'
import { HubRooms } from '../../lib/api/rooms.ts'
import { TopicRegistry } from '../../lib/topics/registry.ts'
import { webSocketPeer } from '../../lib/transport/ws/listeners.ts'
import type { Mode, ServerFrame } from '../../types/index.ts'
import { LiveSocket, bareHooks, bareSettings, silent } from '../helpers/bare-hub.ts'
import { FakeStream, fakeDefinition } from '../helpers/fakes.ts'
import { textsIn } from '../helpers/wire.ts'

/**
 * Rule 6 of docs/protocol.md for the hub alone, as a property: for each sequence of events, with many of them in one turn of the event loop, each member
 * gets exactly the predicted frames, and a failure shrinks to the few steps that matter. test/fan-out-order.test.ts does the same over real connections. FC_SEED repeats a run.
 */
const topics = ['chat', 'work'] as const
type Topic = typeof topics[number]

const definition = fakeDefinition({ presence: null, maxPayload: 100_000 })
const settings = bareSettings({ limits: { topics: 10 }, address: { connections: undefined, rate: { capacity: 1_000_000, per: 1_000 }, rateIsGiven: false } })

/** One member and its predicted frames. `life` stands for the epoch of its room. */
interface Member {
  mode: Mode
  topic: Topic
  id: string
  socket: LiveSocket
  transport: FakeStream | undefined
  expected: string[]
  /** How it ended. A member that left by itself may lack its last frames. */
  over: 'kicked' | 'gone' | undefined
}

interface Life { number: number, offset: number }

const who = fc.nat({ max: 20 })
const topic = fc.constantFrom(...topics)
const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ do: fc.constant('join' as const), topic, raw: fc.boolean(), tcp: fc.boolean() }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('broadcast' as const), topic, except: fc.option(who) }) },
  { weight: 4, arbitrary: fc.oneof(fc.record({ do: fc.constant('publish' as const), who }), fc.record({ do: fc.constant('ping' as const), who })) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('direct' as const), who, to: who }) },
  { weight: 1, arbitrary: fc.oneof(fc.record({ do: fc.constant('kick' as const), who }), fc.record({ do: fc.constant('leave' as const), who })) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('kick all' as const, 'burst' as const), topic }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('turn' as const) }) }
)
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never

const turn = (): Promise<void> => new Promise(resolve => { setImmediate(resolve) })

class World {
  readonly faults: string[] = []
  readonly members: Member[] = []
  readonly #lives = new Map<Topic, Life>()
  readonly #results: Promise<void>[] = []
  readonly #hub: Hub
  #count = 0
  #begun = 0

  constructor () {
    const registry = new TopicRegistry(undefined, payloadCompiler(schemaCompiler({}), {}), { limits: { payload: 1_000, messages: 1_000, per: 1_000, topicLength: 255 }, slow: { policy: 'close', bytes: 1_000_000 }, history: false })
    this.#hub = new Hub(memoryBroker(), bareHooks({ onError: error => { this.faults.push(String(error)) } }), settings, silent)
    this.#hub.rooms = new HubRooms(this.#hub, registry, () => Promise.reject(new Error('no inject here')), () => { throw new Error('no document here') })
  }

  async start (): Promise<void> { await this.#hub.start() }

  #open (topic?: Topic): Member[] { return this.members.filter(member => member.over === undefined && (topic === undefined || member.topic === topic)) }
  #pick (index: number): Member | undefined {
    const open = this.#open()
    return open[index % open.length]
  }

  /** Predicts a message to a topic. Returns its position. */
  #message (topic: Topic, data: unknown, from?: string, except?: Member): string {
    const life = this.#lives.get(topic)
    if (life === undefined) return ''
    const at = `${life.number}-${++life.offset}`
    for (const member of this.#open(topic)) if (member !== except) member.expected.push(member.mode === 'rooms.raw' ? JSON.stringify(data) : `message ${at} ${JSON.stringify(data)} ${from}`)
    return at
  }

  #end (member: Member, over: 'kicked' | 'gone'): void {
    const { number, offset } = this.#lives.get(member.topic)!
    if (over === 'kicked' && member.mode === 'rooms.v1') member.expected.push(`bye 4005 ${number}-${offset}`)
    member.over = over
    if (this.#open(member.topic).length === 0) this.#lives.delete(member.topic)
  }

  async #join ({ topic, raw, tcp }: Extract<Step, { do: 'join' }>): Promise<void> {
    const mode = raw ? 'rooms.raw' : 'rooms.v1'
    const socket = new LiveSocket()
    const transport = tcp ? new FakeStream() : undefined
    const isNew = !this.#lives.has(topic)
    if (isNew) this.#lives.set(topic, { number: ++this.#begun, offset: 0 })
    const before = new Set(Array.from(this.#hub.directory.all(), ({ id }) => id))
    this.#hub.connect({ ...webSocketPeer(socket as never, transport ?? {}, mode), address: '', addressKey: 'here', isForwarded: false, definition, topic, user: undefined, info: undefined, since: undefined, presence: false, onJoin: undefined } as never)
    // The first join waits for the broker: within this turn, but not within this call.
    if (isNew) for (let n = 0; n < 20; n++) await undefined
    const id = Array.from(this.#hub.directory.all(), ({ id }) => id).find(id => !before.has(id))!
    const { number, offset } = this.#lives.get(topic)!
    this.members.push({ mode, topic, id, socket, transport, expected: mode === 'rooms.v1' ? [`hello ${number}-${offset} ${id}`] : [], over: undefined })
  }

  #broadcast (topic: Topic, except?: Member): void {
    const data = ++this.#count
    const local = this.#open(topic).filter(member => member !== except).length
    const at = this.#message(topic, data, undefined, except)
    this.#results.push(this.#hub.rooms.broadcast(topic, data, except === undefined ? {} : { except: except.id }).then(result => {
      if (result.local !== local || (result.id === undefined) !== (at === '')) this.faults.push(`a broadcast to ${local} members: ${JSON.stringify(result)}`)
    }))
  }

  async take (step: Step): Promise<void> {
    if (step.do === 'turn') return turn()
    if (step.do === 'join') return this.#join(step)
    if ('who' in step) {
      const member = this.#pick(step.who)
      if (member !== undefined) this.#act(step, member)
    } else if (step.do === 'broadcast') {
      this.#broadcast(step.topic, step.except === null ? undefined : this.#pick(step.except))
    } else if (step.do === 'burst') {
      for (let n = 0; n < 300; n++) this.#broadcast(step.topic)
    } else {
      const all = this.#open(step.topic)
      for (const member of all) this.#end(member, 'kicked')
      this.#results.push(this.#hub.rooms.kick({ topic: step.topic }).then(count => { if (count !== all.length) this.faults.push(`${count} were kicked instead of ${all.length}`) }))
    }
  }

  #act (step: Extract<Step, { who: number }>, member: Member): void {
    const { mode, topic, id, socket, expected } = member
    const ref = ++this.#count
    if (step.do === 'leave') {
      this.#end(member, 'gone')
      socket.gone(1005)
    } else if (step.do === 'kick') {
      this.#end(member, 'kicked')
      this.#hub.rooms.kick({ session: id })
    } else if (step.do === 'publish') {
      const at = this.#message(topic, ref, id)
      if (mode === 'rooms.v1') expected.push(`ack ${ref} ${at}`)
      socket.receive(mode === 'rooms.raw' ? ref : { type: 'message', data: ref, ref })
    } else if (mode === 'rooms.raw') {
      // It has no word for the rest.
    } else if (step.do === 'ping') {
      expected.push(`ack ${ref} undefined`)
      socket.receive({ type: 'ping', ref })
    } else {
      const receiver = this.#pick(step.to)!
      const reaches = receiver.topic === topic
      if (reaches) receiver.expected.push(receiver.mode === 'rooms.raw' ? String(ref) : `direct ${ref} ${id}`)
      expected.push(reaches ? `ack ${ref} undefined` : `refused ${ref} FST_ROOMS_NO_SUCH_SESSION`)
      socket.receive({ type: 'direct', to: receiver.id, data: ref, ref })
    }
  }

  /** Compares received frames with predicted ones, for all members. */
  async judge (): Promise<string[]> {
    await turn()
    await Promise.all(this.#results)
    const epochs = new Map<string, string>()
    for (const [index, { mode, topic, socket, transport, expected, over }] of this.members.entries()) {
      const got = (transport === undefined ? socket.sent : textsIn(Buffer.concat(transport.written))).map(text => mode === 'rooms.raw' ? text : essence(text))
      // Epochs are random; each stands for one life of a room.
      const read = got.map((line, place) => line.replace(/[0-9a-f]{16}(?=-\d)/, epoch => {
        const life = /(\d+)-\d+/.exec(expected[place] ?? '')?.[1] ?? '?'
        if (!epochs.has(epoch) && ![...epochs.values()].includes(life)) epochs.set(epoch, life)
        return epochs.get(epoch) ?? epoch
      }))
      const due = over === 'gone' ? expected.slice(0, read.length) : expected
      if (!isDeepStrictEqual(read, due)) this.faults.push(`member ${index} (${mode}, ${topic}, ${transport === undefined ? 'ws' : 'tcp'}, ${over}): ${JSON.stringify(read.slice(-20))} instead of ${JSON.stringify(due.slice(-20))}`)
      if ((over === 'kicked') !== isDeepStrictEqual(socket.closes, [{ code: 4005, reason: 'kicked' }])) this.faults.push(`member ${index} (${over}): closed by ${JSON.stringify(socket.closes)}`)
    }
    for (const { socket } of this.members) if (socket.readyState !== 3) socket.gone(1006)
    const { directory, connections } = this.#hub
    const left = { sessions: directory.size, connections: connections.size, rooms: this.#hub.stats().topics }
    if (Object.values(left).some(size => size > 0)) this.faults.push(`left: ${JSON.stringify(left)}`)
    await this.#hub.close()
    return this.faults
  }
}

function essence (text: string): string {
  const frame = JSON.parse(text) as ServerFrame
  switch (frame.type) {
    case 'hello': return `hello ${frame.id} ${frame.session}`
    case 'message': return `message ${frame.id} ${JSON.stringify(frame.data)} ${frame.from}`
    case 'direct': return `direct ${JSON.stringify(frame.data)} ${frame.from}`
    case 'ack': return frame.ok ? `ack ${frame.ref} ${frame.id}` : `refused ${frame.ref} ${frame.error.code}`
    case 'bye': return `bye ${frame.code} ${frame.id}`
    default: return text
  }
}

t.test('each member gets exactly the predicted frames, in each sequence of events', { timeout: 120_000 }, async t => {
  const seed = process.env['FC_SEED']
  let frames = 0
  const details = await fc.check(fc.asyncProperty(fc.array(step, { maxLength: 80, size: 'max' }), async steps => {
    const world = new World()
    await world.start()
    for (const step of steps) await world.take(step)
    const faults = await world.judge()
    frames += world.members.reduce((sum, { expected }) => sum + expected.length, 0)
    if (faults.length > 0) throw new Error(faults.slice(0, 3).join('\n'))
  }), { numRuns: Number(process.env['FC_RUNS'] ?? 200), ...(seed === undefined ? {} : { seed: Number(seed) }) })
  t.notOk(details.failed, fc.defaultReportMessage(details) ?? `${details.numRuns} runs`)
  t.ok(details.failed || frames > 10_000, `${frames} frames`)
})
