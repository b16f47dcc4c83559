import { isDeepStrictEqual } from 'node:util'
import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import type { MemberSession } from '../../lib/session/session.ts'
import type { BroadcastResult, LeaveReason, Mode, Session } from '../../types/index.ts'
import { connect, createRooms, listen, until, type LogLine } from '../helpers/app.ts'
import { openStream } from '../helpers/event-stream.ts'
import { random } from '../helpers/random.ts'
import { Model, essence, fold, topicNames, type Entry, type Peer, type Topic } from './model.ts'
import { Wire } from './wire.ts'

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
  /** Connections of several topics. */
  readonly wires: Wire[] = []
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
  /** Stops the actions of hooks when the steps end, and while a call ends several members. */
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
      identify: ({ headers }) => headers['x-user'] === undefined ? null : { user: headers['x-user'] as string },
      onJoin: (session, request) => run().onJoin(session, request.headers['x-user'] === undefined ? Number(request.headers['x-peer']) : run().peerOf(session)),
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
    await until(() => {
      for (const proceed of this.#gates.splice(0)) proceed()
      return this.peers.every((_peer, index) => this.#isDecided(index))
    })
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

  /** The peer of a session on a connection of several topics. */
  peerOf (session: Session): number {
    const wire = this.wires.find(({ user }) => user === session.user)!
    return this.peers.indexOf(wire.sender((session as unknown as MemberSession).connection.refOf(session as never)))
  }

  async onJoin (session: Session, index: number): Promise<unknown> {
    const peer = this.peers[index]!
    const { mode, topic, since, wire } = peer
    if (session.topic !== topic) this.faults.push(`peer ${index} joined ${session.topic} instead of ${topic}`)
    const isSecond = (entry: Entry): boolean => entry.topic === topic && entry.session.state !== 'closed' && this.peers[entry.peer]!.wire === wire
    if (wire !== undefined && [...this.model.entries.values()].some(isSecond)) this.faults.push(`peer ${index} has joined ${topic} twice`)
    const entry: Entry = { session, peer: index, mode, topic, since, state: 'joining', early: [], expected: [], waiting: [], isCut: false, isLeft: false, seen: 0, close: undefined }
    this.model.entries.set(session.id, entry)
    if (this.#chance(0.3)) this.#sendTo(entry)
    const refuses = wire !== undefined && this.#chance(0.1)
    await new Promise<void>(resolve => { this.#gates.push(resolve) })
    if (!refuses || session.state === 'closed') return undefined
    entry.state = 'closed'
    peer.refusal = 'FST_ROOMS_FORBIDDEN 4003'
    return false
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
    else this.model.left(entry, this.peers[entry.peer]!.wire !== undefined)
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
    const isEarly = entry.state === 'joining' && this.peers[entry.peer]!.wire !== undefined
    if (isEarly) entry.state = 'closed' // its peer has left it, or the host has kicked it, while onJoin ran
    else if (entry.state !== 'closed') this.faults.push(`onLeave (${code}) of a member that is ${entry.state}`)
    if (!this.quiet && this.#chance(0.3)) this.broadcast(entry.topic)
  }

  onInvalid (session: Session, code: string): void {
    const entry = this.model.entries.get(session.id)!
    entry.seen++
    if (entry.mode === 'rooms.raw') this.model.end(entry, 4000, 'bad_frame')
    else this.model.answer(entry, this.peers[entry.peer]!.wire !== undefined ? `ack ${this.peers[entry.peer]!.malformed.shift()} ${code}` : `error ${code}`)
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
    const { wire } = this.peers[entry.peer]!
    if (wire !== undefined && !wire.isOver && this.#chance(0.3)) {
      this.#kickUser(wire, this.#chance(0.5) ? entry.topic : undefined, { code, reason })
      return
    }
    this.model.end(entry, code, reason)
    this.#results.push(this.app.rooms.kick({ session: entry.session.id }, { code, reason }).then(count => { if (count !== 1) this.faults.push('no member was kicked') }))
  }

  /** Ends the memberships of a user in one topic, or its connection with all of them. */
  #kickUser (wire: Wire, topic: Topic | undefined, ending: { code: number, reason: string }): void {
    const { quiet } = this
    this.quiet = true
    const isMeant = ({ session, topic: other }: Entry): boolean => session.user === wire.user && session.state !== 'closed' && (topic ?? other) === other
    const meant = [...this.model.entries.values()].filter(isMeant)
    for (const entry of meant) {
      this.model.end(entry, ending.code, ending.reason)
      if (entry.state === 'joining') this.peers[entry.peer]!.refusal = `FST_ROOMS_JOIN_REFUSED ${ending.code}`
    }
    wire.isKicked = true
    if (topic === undefined) wire.ending = ending
    const kicked = this.app.rooms.kick(topic === undefined ? { user: wire.user } : { user: wire.user, topic }, ending)
    this.#results.push(kicked.then(count => { if (count < meant.length) this.faults.push(`${count} sessions were kicked instead of ${meant.length}`) }))
    this.quiet = quiet
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

  /** A join by frame, on a connection that is open or on a new one. Sends messages behind some joins, which wait for hello. */
  async #joinByFrame (): Promise<void> {
    const isFree = (wire: Wire, topic: Topic): boolean => !wire.peers.some(peer => peer.topic === topic && peer.closed === undefined && peer.leaveRef === undefined)
    const places = this.wires.filter(({ isOver }) => !isOver).flatMap(wire => topicNames.filter(topic => isFree(wire, topic)).map(topic => ({ wire, topic })))
    const place = this.#chance(0.7) ? this.#pick(places) : undefined
    const topic = place?.topic ?? this.#pick([...topicNames])!
    const wire = place?.wire ?? await this.#openWire()
    if (!wire.isOver) this.#addTopic(wire, topic, 2)
  }

  /** @param most - messages that are sent behind the join */
  #addTopic (wire: Wire, topic: Topic, most: number): Peer {
    const presence = this.#chance(0.5)
    const since = this.#chance(0.5) ? this.#since(topic) : undefined
    const joinRef = `r${++this.#count}`
    const peer: Peer = {
      mode: 'rooms.v1',
      topic,
      since,
      isStream: false,
      presence,
      ready: true,
      published: 0,
      gone: false,
      received: [],
      closed: undefined,
      wire,
      joinRef,
      leaveRef: undefined,
      refused: undefined,
      refusal: undefined,
      held: [],
      unjoined: [],
      malformed: [],
      send: frame => { if (!wire.isOver) wire.say(peer, frame as { type: string }) },
      leave: () => {
        if (wire.hasRival(peer)) return
        peer.leaveRef = `r${++this.#count}`
        peer.send({ type: 'leave', ref: peer.leaveRef })
      }
    }
    this.peers.push(peer)
    peer.send({ type: 'join', ref: joinRef, since, presence: presence || undefined })
    for (let n = this.#below(most + 1); n > 0; n--) {
      const ref = `r${++this.#count}`
      peer.held.push(ref)
      peer.send({ type: 'message', data: { n: this.#count, ref, act: 'echo' }, ref })
    }
    return peer
  }

  async #openWire (): Promise<Wire> {
    const wire = new Wire(`w${++this.#count}`, text => { this.faults.push(text) })
    const headers = { 'x-user': wire.user }
    if (this.#way === 'injected') {
      const client = await this.app.rooms.inject('/rooms', { headers })
      wire.send = frame => { client.send(frame) }
      wire.leave = () => { client.close() }
      client.closed.then(closed => { wire.end(closed) })
      const read = async (): Promise<void> => { for (;;) wire.receive(JSON.stringify(await client.next())) }
      read().catch(() => {})
    } else {
      const abrupt = this.#chance(0.3)
      const client = await connect(this.#t, `${this.#url}/rooms`, 'rooms.v1', { headers, perMessageDeflate: this.#chance(0.7) })
      for (const text of client.received) wire.receive(text)
      client.socket.on('message', data => { wire.receive(data.toString()) })
      wire.send = frame => { client.send(frame) }
      wire.leave = () => { if (abrupt) client.socket.terminate(); else client.socket.close() }
      client.closed.then(closed => { wire.end(closed) })
    }
    this.wires.push(wire)
    return wire
  }

  /** Sends a frame that a connection of several topics refuses: a second join of a topic, one for a topic that was left, and a malformed one. */
  #disturb (wire: Wire): void {
    if (wire.isOver) return
    const peer = this.#pick(wire.peers)
    const dice = this.#below(4)
    if (peer === undefined || dice === 0) {
      wire.malformed++
      wire.send(this.#pick(['{', '[]', '{"type":"message","data":1}', Buffer.from('{}')]))
    } else if (dice === 1) {
      // Messages behind it would be those of the first.
      wire.seconds.add(this.#addTopic(wire, peer.topic, 0))
    } else if (dice === 2 && peer.leaveRef === undefined && !wire.seconds.has(peer)) peer.leave()
    else if (peer.leaveRef !== undefined && peer.closed !== undefined) wire.send({ type: 'message', topic: 'nowhere', data: 1 })
  }

  async #join (): Promise<void> {
    if (this.#chance(0.5)) {
      await this.#joinByFrame()
      return
    }
    const index = this.peers.length
    const mode: Mode = this.#chance(0.3) ? 'rooms.raw' : 'rooms.v1'
    const topic = this.#pick([...topicNames])!
    const presence = this.#chance(0.5)
    const since = mode === 'rooms.v1' && this.#chance(0.5) ? this.#since(topic) : undefined
    const path = `/rooms/${topic}?presence=${presence ? 1 : 0}${since === undefined ? '' : `&since=${since}`}`
    const headers = { 'x-peer': String(index) }
    const received: string[] = []
    const isStream = this.#way !== 'injected' && mode === 'rooms.v1' && this.#chance(0.3)
    const peer: Peer = { mode, topic, since, isStream, presence, ready: false, published: 0, gone: false, received, closed: undefined, wire: undefined, joinRef: undefined, leaveRef: undefined, refused: undefined, refusal: undefined, held: [], unjoined: [], malformed: [], send () {}, leave () {} }
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
    const able = peer.ready && !peer.gone && !peer.isStream && peer.leaveRef === undefined && peer.wire?.hasRival(peer) !== true
    const say = (frame: object): void => { if (able) peer.send({ ...frame, ref }) }
    const dice = this.#below(106)
    if (dice < 18) this.broadcast(topic)
    else if (dice < 28) this.broadcast(topic, id)
    else if (dice < 40) this.#sendTo(entry)
    else if (dice < 66) {
      if (!able) return
      peer.published++
      const act = this.#pick(['echo', 'others', 'many', 'reply', 'later', 'throw', 'kick', 'leave', 'echo', 'others', 'many', 'reply'])!
      // An ack that comes later has no certain place among the frames.
      // The error of a topic that was left meanwhile could not be told from one of the next membership.
      const answered = act === 'throw' && peer.wire !== undefined ? ref ?? `r${++this.#count}` : ref
      const data = topic === 'chat' ? { ...this.#data(50_000), ref } : { ...this.#data(50_000), act, ref: act === 'later' ? undefined : answered }
      peer.send(mode === 'rooms.raw' ? data : { type: 'message', data, ref: data.ref })
    } else if (dice < 76) {
      const to = this.#pick(model.members(topic))!.session.id
      if (mode === 'rooms.v1') say({ type: 'direct', to, data: { ...this.#data(50_000), ref } })
    } else if (dice < 80) {
      if (!able) return
      peer.published++
      if (peer.wire !== undefined) {
        peer.malformed.push(`r${++this.#count}`)
        peer.send({ type: 'nonsense', ref: peer.malformed.at(-1) })
      } else if (mode === 'rooms.v1') peer.send(this.#pick(['{', '[]', '{"type":"nonsense"}', Buffer.from('{}')]))
      else if (this.#chance(0.1)) peer.send(Buffer.from('1'))
      else peer.published--
    } else if (dice < 84) {
      if (mode === 'rooms.v1') say({ type: 'presence', info: { n: ++this.#count, ref } })
    } else if (dice < 93) {
      this.#more()
    } else if (dice < 96) this.#kick()
    else if (dice < 98) {
      if (model.open.length < 4 || !peer.ready || peer.gone) return
      const { wire } = peer
      if (wire === undefined || (!wire.isOver && this.#chance(0.4))) {
        for (const each of wire?.peers ?? [peer]) each.gone = true
        if (wire !== undefined) wire.gone = true
        ;(wire ?? peer).leave()
      } else if (peer.leaveRef === undefined) peer.leave()
    } else if (dice >= 100) {
      const wire = this.#pick(this.wires)
      if (wire !== undefined) this.#disturb(wire)
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

  /** Whether a peer has joined, or has been refused, or has gone. */
  #isDecided (index: number): boolean {
    const { gone, closed, ready } = this.peers[index]!
    return gone || closed !== undefined || (ready && [...this.model.entries.values()].some(entry => entry.peer === index && entry.state !== 'joining'))
  }

  /** Waits until nothing is in flight. */
  async #settle (): Promise<void> {
    await until(async () => {
      this.#release()
      return this.#gates.length === 0 && this.peers.every((_peer, index) => this.#isDecided(index))
    }, 10_000).catch(() => {
      for (const [index, { wire, topic, joinRef, leaveRef }] of this.peers.entries()) if (!this.#isDecided(index)) this.faults.push(`peer ${index} (${wire?.user}, ${topic}, ${joinRef}, ${leaveRef}) has neither joined nor been refused`)
    })
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
    await until(() => [...this.model.entries.values()].every(({ peer, state, expected, isLeft, isCut }) => {
      const { received, mode, closed, gone } = this.peers[peer]!
      if (gone || (state !== 'open' && (!isLeft || isCut))) return closed !== undefined
      return received.findLastIndex(text => essence(mode, text) === expected.at(-1)) >= 0
    }), 10_000).catch(error => { this.faults.push(error.message) })
  }

  async #check (): Promise<void> {
    const { faults, model } = this
    for (const entry of model.entries.values()) model.settle(entry)
    for (const { peer: index, mode, topic, expected, close, session, isCut, isLeft } of model.entries.values()) {
      const peer = this.peers[index]!
      const who = `peer ${index} (${peer.wire?.user ?? mode}, ${topic})`
      const got = peer.received.map(text => essence(mode, text)).filter(text => text !== undefined && !text.startsWith('ack over ') && !text.endsWith(' FST_ROOMS_NO_SUCH_SESSION')).slice(0, isCut ? expected.length : undefined)
      const place = got.findIndex((text, place) => text !== expected[place])
      if (place >= 0) faults.push(`${who}: frame ${place} is ${brief(got[place])} instead of ${brief(expected[place])}`)
      else if (got.length < expected.length && !peer.gone) faults.push(`${who}: frame ${got.length} is missing: ${brief(expected[got.length])}`)
      if (close !== undefined && !peer.gone && !isDeepStrictEqual(peer.closed, close)) faults.push(`${who}: closed with ${JSON.stringify(peer.closed)} instead of ${JSON.stringify(close)}`)
      if (isLeft && !peer.gone && !isDeepStrictEqual(peer.closed, { code: 1000, reason: '' })) faults.push(`${who}: left with ${JSON.stringify(peer.closed)}`)
      if (close === undefined && !peer.gone && !isLeft && expected.length > 0 && (peer.closed !== undefined || session.state !== 'open')) faults.push(`${who}: closed with ${JSON.stringify(peer.closed)}`)
    }
    this.#checkWires()
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

  /** Checks the connections of several topics, and the joins by frame that were refused. */
  #checkWires (): void {
    const { faults } = this
    for (const [index, { wire, topic, gone, leaveRef, refused, refusal, held, unjoined, received, closed }] of this.peers.entries()) {
      if (wire === undefined || wire.isOver || gone) continue
      const who = `peer ${index} (${wire.user}, ${topic})`
      const isGreeted = received.length > 0
      const allowed = refusal ?? (leaveRef === undefined ? 'FST_ROOMS_ALREADY_JOINED undefined' : undefined)
      const isFine = refused === allowed || (wire.isKicked && refused?.startsWith('FST_ROOMS_JOIN_REFUSED')) || (leaveRef !== undefined && ['FST_ROOMS_NOT_JOINED undefined', 'FST_ROOMS_ALREADY_JOINED undefined'].includes(refused!))
      if (!isGreeted && !isFine) faults.push(`${who}: its join was answered ${refused} instead of ${allowed}`)
      if (isGreeted && refused !== undefined) faults.push(`${who}: its join was answered ${refused} and by hello`)
      const isAlready = refused?.startsWith('FST_ROOMS_ALREADY_JOINED') === true
      if (isGreeted && closed === undefined && unjoined.length > 0) faults.push(`${who}: ${unjoined} were refused`)
      if (!isGreeted && !isAlready && !isDeepStrictEqual(unjoined, held)) faults.push(`${who}: ${unjoined} were refused instead of ${held}`)
    }
    for (const { user, own, malformed, ending, closed, gone } of this.wires) {
      const frames = own.map(text => JSON.parse(text))
      if (frames[0]?.type !== 'hello') faults.push(`${user}: the first frame is ${own[0]}`)
      const errors = frames.filter(({ type }) => type === 'error').length
      if (!gone && ending === undefined && errors !== malformed) faults.push(`${user}: ${errors} errors instead of ${malformed}`)
      if (!gone && !isDeepStrictEqual(closed, ending)) faults.push(`${user}: closed with ${JSON.stringify(closed)} instead of ${JSON.stringify(ending)}`)
      const bye = frames.find(({ type }) => type === 'bye')
      if (!gone && bye?.code !== ending?.code) faults.push(`${user}: bye is ${JSON.stringify(bye)}`)
    }
  }
}
