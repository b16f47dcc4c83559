import { isDeepStrictEqual } from 'node:util'
import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import type { BroadcastResult, LeaveReason, Mode, Session } from '../../types/index.ts'
import { connect, createRooms, listen, until, type LogLine } from '../helpers/app.ts'
import { openStream } from '../helpers/event-stream.ts'
import { random } from '../helpers/random.ts'
import { Model, essence, fold, topicNames, type Entry, type Peer, type Topic } from './model.ts'

export const steps = 300
/** Most bytes of a replay. They are sent in the step of the join, so that the place of each private frame is known. */
const replay = 40_000
const anything = { publish: true, presence: Type.Any(), history: { size: 100_000, bytes: 1_000_000_000, replay } } as const

/** The ways of writing frames: straight to TCP, through ws with compression (and some straight), into streams. */
export type Way = 'direct' | 'deflate' | 'injected'

const brief = (text: string | undefined): string => text === undefined ? 'nothing' : text.length > 120 ? `${text.slice(0, 120)}…` : text

/** Calls back for each line of the log, as it is written. */
class Lines extends Array<LogLine> {
  static override get [Symbol.species] () { return Array }
  heard: (line: LogLine) => void = () => {}
  override push (...lines: LogLine[]): number {
    for (const line of lines) this.heard(line)
    return 0
  }
}

/** One seeded run: an app, its clients, and events on both sides. */
export class Run {
  readonly app: FastifyInstance
  readonly model = new Model()
  readonly peers: Peer[] = []
  readonly faults: string[] = []
  readonly #t: Test
  readonly #way: Way
  readonly #url: string
  readonly #random: () => number
  /** Joins that wait in onJoin, and members in onJoined. */
  readonly #gates: (() => void)[] = []
  readonly #results: Promise<void>[] = []
  readonly #subscribed = new Map<Topic, string[]>()
  /** The number of messages so far, from all senders. */
  #count = 0
  #recovered = 0
  #unrecovered = 0
  /** Stops the actions of hooks when the steps end. */
  quiet = false

  static async start (t: Test, way: Way, seed: number): Promise<Run> {
    const lines = new Lines()
    const box: { run?: Run } = {}
    const run = (): Run => box.run!
    const app = await createRooms(t, {
      topics: { chat: anything, work: anything },
      heartbeat: false,
      slow: { bytes: 1_000_000_000 },
      limits: { badFrames: 100_000, pending: 1_000 },
      websocket: { options: { perMessageDeflate: way === 'deflate' } },
      onJoin: (session, request) => run().onJoin(session, Number(request.headers['x-peer'])),
      onJoined: session => run().onJoined(session as Session),
      onLeave: (session, reason) => { run().onLeave(session as Session, reason) },
      onInvalid: (session, { code }) => { run().onInvalid(session as Session, code); return 'answer' },
      onMessage: { work: (session, payload) => run().onMessage(session, payload) },
      authorize: context => {
        if (context.action === 'publish' || context.action === 'presence' || context.action === 'direct') run().asked(context)
        return true
      }
    }, lines)
    const url = way === 'injected' ? '' : await listen(app)
    box.run = new Run(t, app, way, url, random(seed * 3 + ['direct', 'deflate', 'injected'].indexOf(way)))
    lines.heard = line => { run().heard(line) }
    await run().#begin()
    return run()
  }

  constructor (t: Test, app: FastifyInstance, way: Way, url: string, random: () => number) {
    this.#t = t
    this.app = app
    this.#way = way
    this.#url = url
    this.#random = random
  }

  async #begin (): Promise<void> {
    await this.app.ready()
    for (const topic of topicNames) {
      // A subscriber keeps the room, and must get each message as well.
      const got: string[] = []
      this.#subscribed.set(topic, got)
      const subscription = this.app.rooms.subscribe(topic, { buffer: 1_000_000 })
      const read = async (): Promise<void> => { for await (const message of subscription) got.push(JSON.stringify(message)) }
      read().catch(error => { this.faults.push(`subscription: ${error.message}`) })
      const { id } = await this.app.rooms.broadcast(topic, 'first')
      const [epoch, offset] = id!.split('-')
      this.model.epochs.set(topic, epoch!)
      this.model.offsets.set(topic, Number(offset))
      this.model.published.get(topic)!.push({ id: id!, from: undefined, json: '"first"' })
    }
    for (let n = 0; n < 6; n++) await this.#join()
    for (let n = 0; n < 6; n++) this.#release()
    await until(() => this.model.open.length === 6)
  }

  #chance (odds: number): boolean { return this.#random() < odds }
  #below (count: number): number { return Math.floor(this.#random() * count) }
  #pick<T> (list: T[]): T | undefined { return list[this.#below(list.length)] }

  #data (longest = 80_000): { n: number, pad?: string } {
    const n = ++this.#count
    // Mostly small payloads; some above the compression threshold of ws, and a few that need the longest header.
    if (!this.#chance(0.1)) return { n }
    return { n, pad: 'a'.repeat(this.#chance(0.1) ? longest : 2_000) }
  }

  // Events on the server.

  async onJoin (session: Session, peer: number): Promise<void> {
    const { mode, topic, since } = this.peers[peer]!
    const entry: Entry = { session, peer, mode, topic, since, state: 'joining', early: [], expected: [], waiting: [], isCut: false, seen: 0, close: undefined }
    this.model.entries.set(session.id, entry)
    if (this.#chance(0.3)) this.#sendTo(entry)
    await new Promise<void>(resolve => { this.#gates.push(resolve) })
  }

  onJoined (session: Session): void | Promise<void> {
    const entry = this.model.entries.get(session.id)!
    if (this.#chance(0.3)) this.broadcast(entry.topic)
    if (this.#chance(0.5)) this.#sendTo(entry)
    if (this.#chance(0.6)) return new Promise<void>(resolve => { this.#gates.push(resolve) })
  }

  heard ({ msg, session }: LogLine): void {
    if (msg !== 'member joined' && msg !== 'member left') return
    const entry = this.model.entries.get(session as string)!
    if (msg === 'member joined') this.model.joined(entry, this.#isRecovered(entry))
    else this.model.left(entry)
  }

  /** Whether the member that has just joined gets all messages since its position. */
  #isRecovered ({ topic, since }: Entry): boolean {
    const { recovered, unrecovered } = this.app.rooms.stats()
    const [isRecovered, isLost] = [recovered > this.#recovered, unrecovered > this.#unrecovered]
    this.#recovered = recovered
    this.#unrecovered = unrecovered
    if ((since !== undefined) !== (isRecovered || isLost)) this.faults.push(`a join with since=${since} counted as ${isRecovered ? 'recovered' : isLost ? 'unrecovered' : 'neither'}`)
    if (since === undefined) return false
    const bytes = this.model.behind(topic, since).reduce((sum, { json }) => sum + json.length, 0)
    // Each frame has some 150 bytes besides its payload.
    const most = bytes + 200 * this.model.behind(topic, since).length
    if (isRecovered ? bytes > replay : most < replay) this.faults.push(`a join with ${bytes} bytes since its position counted as ${isRecovered ? 'recovered' : 'unrecovered'}`)
    return isRecovered
  }

  onLeave (session: Session, { code }: LeaveReason): void {
    const entry = this.model.entries.get(session.id)!
    if (entry.state !== 'closed') this.faults.push(`onLeave (${code}) of a member that is ${entry.state}`)
    if (!this.quiet && this.#chance(0.3)) this.broadcast(entry.topic)
  }

  onInvalid (session: Session, code: string): void {
    const entry = this.model.entries.get(session.id)!
    entry.seen++
    if (entry.mode === 'rooms.raw') this.model.end(entry, 4000, 'bad_frame')
    else this.model.answer(entry, `error ${code}`)
  }

  asked ({ action, session, payload, target }: any): void {
    const { model } = this
    const entry = model.entries.get(session.id)!
    const { ref } = payload
    if (!this.quiet && this.#chance(0.2)) this.broadcast(entry.topic)
    if (!this.quiet && this.#chance(0.1)) queueMicrotask(() => { this.broadcast(entry.topic) })
    if (action === 'publish') {
      entry.seen++
      if (entry.topic === 'work') return
      const { id } = model.message(entry.topic, payload, session.id)
      if (ref !== undefined) model.answer(entry, `ack ${ref} ${id} undefined`)
    } else if (action === 'presence') {
      if (ref !== undefined) model.answer(entry, `ack ${ref} undefined undefined`)
    } else {
      // The private message is queued in the next microtask, because several topics might have to be asked about.
      queueMicrotask(() => {
        const receiver = model.entries.get(target.session)!
        // Messages of a member that the server has ended meanwhile are dropped.
        if (receiver.state !== 'open' || entry.close !== undefined) return
        model.direct(receiver, payload, session.id)
        if (ref !== undefined) model.answer(entry, `ack ${ref} undefined {"local":1}`)
      })
    }
  }

  /** Actions of the host on messages of members in `work`. */
  onMessage (session: Session, payload: { act: string, ref?: string, n: number }): unknown {
    const { model } = this
    const entry = model.entries.get(session.id)!
    const { act, ref } = payload
    if (act === 'later') {
      return Promise.resolve().then(() => { this.broadcast('work', session.id) })
    }
    if (act === 'throw') {
      model.answer(entry, ref === undefined ? 'error FST_ROOMS_HANDLER_FAILED' : `ack ${ref} FST_ROOMS_HANDLER_FAILED`)
      if (entry.mode === 'rooms.raw') model.end(entry, 1011, 'internal_error')
      throw new Error('as it was told to')
    }
    if (act === 'echo') this.broadcast('work')
    if (act === 'others') this.broadcast('work', session.id)
    if (act === 'many') for (let n = 0; n < 4; n++) this.broadcast(n === 1 ? 'chat' : 'work', this.#chance(0.5) ? this.#pick(model.members('work'))?.session.id : undefined)
    if (act === 'reply') {
      this.#sendTo(entry)
      this.broadcast('work')
      this.#sendTo(entry)
    }
    if (act === 'leave') {
      model.end(entry, 4001, 'unauthorized')
      session.close(4001)
    }
    if (act === 'kick') this.#kick()
    if (ref !== undefined) model.answer(entry, `ack ${ref} undefined ${JSON.stringify(payload.n)}`)
    return payload.n
  }

  // Actions of the host and the clients.

  broadcast (topic: Topic, except?: string): void {
    const data = this.#data()
    const expected = this.model.message(topic, data, undefined, except)
    const check = ({ id, local, published }: BroadcastResult): void => {
      if (!published || id !== expected.id || local !== expected.local) this.faults.push(`a broadcast got ${id} and ${local} members instead of ${expected.id} and ${expected.local}`)
    }
    this.#results.push(this.app.rooms.broadcast(topic, data, except === undefined ? {} : { except }).then(check))
  }

  #sendTo (entry: Entry): void {
    // Frames that are sent before hello must leave space for the replay.
    const data = this.#data(entry.state === 'joining' ? 2_000 : undefined)
    const isFirst = this.#chance(0.5)
    this.model.direct(entry, data, undefined, isFirst)
    const sent = isFirst ? entry.session.send(data) : this.app.rooms.send(entry.session.id, data)
    sent.catch((error: Error & { code?: string }) => {
      if (!['FST_ROOMS_SESSION_CLOSED', 'FST_ROOMS_NO_SUCH_SESSION'].includes(error.code!)) this.faults.push(error.message)
    })
  }

  #kick (): void {
    const entry = this.#pick(this.model.open)
    if (entry === undefined || this.model.open.length < 4) return
    const [code, reason] = this.#pick([[4005, 'kicked'], [1000, 'normal'], [4007, 'enough']] as const)! as [number, string]
    this.model.end(entry, code, reason)
    this.#results.push(this.app.rooms.kick({ session: entry.session.id }, { code, reason }).then(count => { if (count !== 1) this.faults.push('no member was kicked') }))
  }

  #release (): void {
    this.#gates.splice(this.#below(this.#gates.length), 1)[0]?.()
  }

  /** Starts a join, and lets a waiting one proceed. */
  #more (): void {
    if (this.peers.filter(({ gone, closed }) => !gone && closed === undefined).length < 14) this.#results.push(this.#join())
    this.#release()
  }

  /** The position of a client that has gone, or else of a recent message. */
  #since (topic: Topic): string | undefined {
    const gone = this.#pick(this.peers.filter(peer => peer.topic === topic && peer.mode === 'rooms.v1' && (peer.gone || peer.closed !== undefined)))
    const last = gone?.received.findLast(text => text.startsWith('{"type":"message"'))
    return last === undefined ? this.model.published.get(topic)!.slice(-20)[0]?.id : (JSON.parse(last) as { id: string }).id
  }

  async #join (): Promise<void> {
    const index = this.peers.length
    const mode: Mode = this.#chance(0.3) ? 'rooms.raw' : 'rooms.v1'
    const topic = this.#pick([...topicNames])!
    const presence = this.#chance(0.5)
    const since = mode === 'rooms.v1' && this.#chance(0.5) ? this.#since(topic) : undefined
    const path = `/rooms/${topic}?presence=${presence ? 1 : 0}${since === undefined ? '' : `&since=${since}`}`
    const headers = { 'x-peer': String(index) }
    const received: string[] = []
    const isStream = this.#way !== 'injected' && mode === 'rooms.v1' && this.#chance(0.3)
    const peer: Peer = { mode, topic, since, isStream, presence, ready: false, published: 0, gone: false, received, closed: undefined, send () {}, leave () {} }
    this.peers.push(peer)
    if (this.#way === 'injected') {
      const client = await this.app.rooms.inject(path, { mode, headers })
      peer.ready = true
      peer.send = frame => { client.send(frame) }
      peer.leave = () => { client.close() }
      client.closed.then(closed => { peer.closed = closed })
      const read = async (): Promise<void> => {
        for (;;) {
          const frame = await client.next()
          received.push(typeof frame === 'string' ? frame : JSON.stringify(frame))
        }
      }
      read().catch(() => {})
      return
    }
    if (isStream) {
      const client = await openStream(this.#t, this.#url + path, headers)
      peer.ready = true
      peer.leave = () => { client.cut() }
      client.body.on('data', () => { received.splice(0, Infinity, ...client.frames.map(frame => JSON.stringify(frame))) })
      client.ended.then(() => {
        const bye = client.frames.findLast(frame => frame.type === 'bye')
        peer.closed = { code: bye?.code ?? 1005, reason: bye?.reason ?? '' }
      })
      return
    }
    const perMessageDeflate = this.#chance(0.7)
    const abrupt = this.#chance(0.3)
    const client = await connect(this.#t, this.#url + path, mode, { headers, perMessageDeflate })
    const deflated = client.socket.extensions.includes('permessage-deflate')
    if (deflated !== (this.#way === 'deflate' && perMessageDeflate)) this.faults.push(`the extensions are "${client.socket.extensions}"`)
    Object.assign(peer, { received: client.received, ready: true })
    peer.send = frame => { client.send(frame) }
    peer.leave = () => { if (abrupt) client.socket.terminate(); else client.socket.close() }
    client.closed.then(closed => { peer.closed = closed })
  }

  /** Performs one random step. */
  #step (): void {
    const { model } = this
    const entry = this.#pick(model.open)
    if (entry === undefined) {
      this.#more() // no member is open
      return
    }
    const { session: { id }, mode, topic } = entry
    const peer = this.peers[entry.peer]!
    const ref = mode === 'rooms.v1' && this.#chance(0.6) ? `r${++this.#count}` : undefined
    const able = peer.ready && !peer.gone && !peer.isStream
    const say = (frame: object): void => { if (able) peer.send({ ...frame, ref }) }
    const dice = this.#below(100)
    if (dice < 18) this.broadcast(topic)
    else if (dice < 28) this.broadcast(topic, id)
    else if (dice < 40) this.#sendTo(entry)
    else if (dice < 66) {
      if (!able) return
      peer.published++
      const act = this.#pick(['echo', 'others', 'many', 'reply', 'later', 'throw', 'kick', 'leave', 'echo', 'others', 'many', 'reply'])!
      // An ack that comes later has no certain place among the frames.
      const data = topic === 'chat' ? { ...this.#data(50_000), ref } : { ...this.#data(50_000), act, ref: act === 'later' ? undefined : ref }
      peer.send(mode === 'rooms.raw' ? data : { type: 'message', data, ref: data.ref })
    } else if (dice < 76) {
      const to = this.#pick(model.members(topic))!.session.id
      if (mode === 'rooms.v1') say({ type: 'direct', to, data: { ...this.#data(50_000), ref } })
    } else if (dice < 80) {
      if (!able) return
      peer.published++
      if (mode === 'rooms.v1') peer.send(this.#pick(['{', '[]', '{"type":"nonsense"}', Buffer.from('{}')]))
      else if (this.#chance(0.1)) peer.send(Buffer.from('1'))
      else peer.published--
    } else if (dice < 84) {
      if (mode === 'rooms.v1') say({ type: 'presence', info: { n: ++this.#count, ref } })
    } else if (dice < 93) {
      this.#more()
    } else if (dice < 96) this.#kick()
    else if (dice < 98) {
      if (model.open.length < 4 || !peer.ready || peer.gone) return
      peer.gone = true
      peer.leave()
    } else if (this.#chance(0.15)) {
      for (let n = 0; n < 300; n++) this.broadcast(topic, n % 100 === 50 ? id : undefined)
    }
  }

  async play (): Promise<void> {
    for (let n = 0; n < steps; n++) {
      this.#step()
      // A released join is committed in these microtasks, in the middle of a turn.
      if (this.#chance(0.3)) for (let tick = 0; tick < 8; tick++) await undefined
      if (this.#chance(0.12)) await new Promise(resolve => setImmediate(resolve))
      if (this.#chance(0.03)) await new Promise(resolve => setTimeout(resolve, 1))
    }
    this.quiet = true
    await this.#settle()
    await this.#check()
  }

  /** Waits until nothing is in flight. */
  async #settle (): Promise<void> {
    await until(async () => {
      this.#release()
      return this.#gates.length === 0 && this.peers.every((peer, index) => peer.gone || (peer.ready && [...this.model.entries.values()].some(entry => entry.peer === index && entry.state !== 'joining')))
    }, 10_000)
    const living = this.model.open.filter(({ peer }) => !this.peers[peer]!.gone)
    for (const { mode, peer } of living) if (mode === 'rooms.v1' && !this.peers[peer]!.isStream) this.peers[peer]!.send({ type: 'ping', ref: 'over' })
    const waiting = () => living.filter(({ mode, peer, state, seen }) => {
      const { received, published, isStream } = this.peers[peer]!
      return !isStream && state !== 'closed' && (mode === 'rooms.raw' ? seen < published : !received.some(text => text.includes('"over"')))
    })
    await until(() => waiting().length === 0, 10_000).catch(() => {
      this.faults.push(...waiting().map(({ peer, mode, topic, seen }) => `peer ${peer} (${mode}, ${topic}) is not handled to the end: ${seen} of ${this.peers[peer]!.published}`))
    })
    for (const topic of topicNames) this.broadcast(topic)
    await Promise.all(this.#results)
    await until(() => [...this.model.entries.values()].every(({ peer, state, expected }) => {
      const { received, mode, closed, gone } = this.peers[peer]!
      if (state === 'closed' || gone) return closed !== undefined
      return received.findLastIndex(text => essence(mode, text) === expected.at(-1)) >= 0
    }), 10_000).catch(error => { this.faults.push(error.message) })
  }

  async #check (): Promise<void> {
    const { faults, model } = this
    for (const entry of model.entries.values()) model.settle(entry)
    for (const { peer: index, mode, topic, expected, close, session, isCut } of model.entries.values()) {
      const peer = this.peers[index]!
      const who = `peer ${index} (${mode}, ${topic})`
      const got = peer.received.map(text => essence(mode, text)).filter(text => text !== undefined && !text.startsWith('ack over ') && !text.endsWith(' FST_ROOMS_NO_SUCH_SESSION')).slice(0, isCut ? expected.length : undefined)
      const place = got.findIndex((text, place) => text !== expected[place])
      if (place >= 0) faults.push(`${who}: frame ${place} is ${brief(got[place])} instead of ${brief(expected[place])}`)
      else if (got.length < expected.length && !peer.gone) faults.push(`${who}: frame ${got.length} is missing: ${brief(expected[got.length])}`)
      if (close !== undefined && !peer.gone && !isDeepStrictEqual(peer.closed, close)) faults.push(`${who}: closed with ${JSON.stringify(peer.closed)} instead of ${JSON.stringify(close)}`)
      if (close === undefined && !peer.gone && (peer.closed !== undefined || session.state !== 'open')) faults.push(`${who}: closed with ${JSON.stringify(peer.closed)}`)
    }
    for (const topic of topicNames) {
      await until(() => this.#subscribed.get(topic)!.length >= model.published.get(topic)!.length).catch(() => {})
      if (!isDeepStrictEqual(this.#subscribed.get(topic), model.published.get(topic)!.map(({ json }) => json))) faults.push(`the subscriber of ${topic} has other messages`)
      const members = new Map((await this.app.rooms.members(topic)).map(member => [member.session, member]))
      for (const entry of model.members(topic)) {
        const { mode, presence, received, gone } = this.peers[entry.peer]!
        if (mode !== 'rooms.v1' || !presence || gone) continue
        await until(() => isDeepStrictEqual(fold(received, () => {}), members)).catch(() => { faults.push(`peer ${entry.peer}: its list of members is not the room's`) })
        fold(received, fault => { faults.push(`peer ${entry.peer}: ${fault}`) })
      }
    }
  }
}
