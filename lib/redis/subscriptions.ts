import type { AttachedPosition, Retention } from '../../types/index.ts'
import type { RedisReply } from '../../types/redis.ts'
import { asError } from '../error-utils.ts'
import { RedisAnswerError } from './answer-error.ts'
import { decodeMessage, decodePublication } from './codec.ts'
import type { Epochs } from './epochs.ts'
import { groupBy } from './group-by.ts'
import type { Keys } from './keys.ts'
import { Line, type LinePorts } from './line.ts'
import { isPassing, type Link } from './link.ts'
import type { BasedPosition, Reader } from './reader.ts'
import { renewScript } from './script.ts'

/** Most channels of one SUBSCRIBE, and most topics of one reading of positions. */
const perCommand = 512
/** Milliseconds between two looks for subscriptions to end, and the least: each look is at all topics. */
const sweepEvery = 1_000
const leastSweep = 50
/** Bounds of the pause between two readings of all positions, in milliseconds. */
const leastCheck = 25_000
const mostCheck = 40_000
/** Milliseconds that a publication may take from the position to its entry. */
const onItsWay = 2_000

/** Milliseconds after which a subscription is tried again that the server could not make. */
const retryAfter = 200

/** A call of `attach` for one topic. */
interface Waiter { resolve (position: AttachedPosition | null): void, reject (error: Error): void }

export interface SubscriptionsSettings {
  readonly isCluster: boolean
  /** Milliseconds that a subscription outlives the last `detach`. */
  readonly linger: number
}

/** The topics that this node is subscribed to: in batches, and with positions that are read after the confirmation. */
export class Subscriptions {
  resubscribed = 0
  readonly #keys: Keys
  readonly #epochs: Epochs
  readonly #reader: Reader
  readonly #linkOf: (partition: number) => Link
  readonly #ports: LinePorts
  readonly #settings: SubscriptionsSettings
  readonly #lines = new Map<string, Line>()
  readonly #byChannel = new Map<string, Line>()
  readonly #waiting = new Map<Line, Waiter[]>()
  /** Lines to subscribe or to read the position of in this turn. */
  #turn: Set<Line> | undefined
  /** Lines that were attached while their connection was not ready. */
  readonly #late = new Set<Line>()
  readonly #sweeper: NodeJS.Timeout
  #checker: NodeJS.Timeout | undefined
  /** Subscriptions that are being ended. node-redis would take a new one of the same channel for a listener of the old one. */
  #ending: Promise<unknown> | undefined
  #isClosed = false

  constructor (keys: Keys, epochs: Epochs, reader: Reader, linkOf: (partition: number) => Link, ports: LinePorts, settings: SubscriptionsSettings) {
    this.#keys = keys
    this.#epochs = epochs
    this.#reader = reader
    this.#linkOf = linkOf
    this.#ports = ports
    this.#settings = settings
    this.#sweeper = setInterval(() => { this.#sweep(performance.now()) }, Math.min(sweepEvery, Math.max(leastSweep, settings.linger))).unref()
    this.#scheduleCheck()
  }

  get size (): number { return this.#lines.size }

  /** The line of a topic that is attached. */
  line (topic: string): Line | undefined {
    const line = this.#lines.get(topic)
    return line?.isAttached === true ? line : undefined
  }

  /** The topic of a channel, if it is attached. */
  topicOf (channel: string): string | undefined {
    const line = this.#byChannel.get(channel)
    return line?.isAttached === true ? line.topic : undefined
  }

  receive (channel: string, bytes: Buffer): void {
    const line = this.#byChannel.get(channel)
    if (line?.isAttached === true) line.receive(decodeMessage(line.topic, bytes))
  }

  attach (topic: string, retention: Retention | undefined): Promise<AttachedPosition | null> {
    let line = this.#lines.get(topic)
    if (line === undefined) {
      line = new Line(topic, this.#keys.channel(topic), this.#keys.partitionOf(topic), this.#ports)
      this.#lines.set(topic, line)
      this.#byChannel.set(line.channel, line)
    }
    line.retention = retention
    if (!line.isAttached) {
      line.isAttached = true
      line.lingersUntil = Infinity
      if (retention !== undefined) line.hold()
    }
    const attached = line
    return new Promise((resolve, reject) => {
      if (this.#isClosed) {
        reject(new Error('the broker has closed'))
        return
      }
      const waiters = this.#waiting.get(attached)
      if (waiters === undefined) this.#waiting.set(attached, [{ resolve, reject }])
      else waiters.push({ resolve, reject })
      if (this.#turn === undefined) {
        this.#turn = new Set()
        queueMicrotask(() => { this.#bringTurn() })
      }
      this.#turn.add(attached)
    })
  }

  detach (topic: string): void {
    const line = this.line(topic)
    if (line === undefined) return
    line.detach()
    line.lingersUntil = performance.now() + this.#settings.linger
  }

  /** Subscribes again after the connection was made again, and mends what was missed. */
  async recover (link: Link): Promise<void> {
    const lines = [...this.#lines.values()].filter(line => this.#linkOf(line.partition) === link)
    const live = lines.filter(line => line.isAttached && (line.isSubscribed || line.isCut))
    for (const line of live) line.isCut = true
    for (const line of lines) {
      line.isSubscribed = false
      if (line.isAttached && line.retention !== undefined) line.hold()
    }
    const attached = lines.filter(line => line.isAttached || this.#waiting.has(line))
    for (const line of attached) this.#late.delete(line)
    const known = attached.filter(line => line.position !== undefined)
    await this.#subscribe(link, attached)
    this.resubscribed += live.length
    await this.#position(attached)
    await this.#findRollbacks(link, known)
    for (const line of live) {
      line.isCut = false
      if (line.isAttached && line.retention === undefined) line.lost()
    }
    for (const line of known) if (line.isAttached && line.position !== undefined) line.mend()
  }

  /** Brings lines that were attached while a connection recovered. Call it when a connection may have become ready. */
  resume (): void {
    const ready = [...this.#late].filter(line => this.#linkOf(line.partition).isReady)
    for (const line of ready) this.#late.delete(line)
    if (ready.length > 0) this.#bring(ready.filter(line => this.#waiting.has(line)))
  }

  close (): void {
    this.#isClosed = true
    this.#late.clear()
    clearInterval(this.#sweeper)
    clearTimeout(this.#checker)
    for (const line of this.#lines.values()) line.detach()
    for (const waiters of this.#waiting.values()) for (const { reject } of waiters) reject(new Error('the broker has closed'))
    this.#waiting.clear()
    this.#lines.clear()
    this.#byChannel.clear()
  }

  /** Begins a new epoch of a topic of which the server has lost publications. */
  async renew (line: Line, isDifferent: boolean): Promise<void> {
    const { topic, position, partition } = line
    if (position === undefined) return
    await this.#linkOf(partition).call(renewScript, [this.#keys.topic(topic)[0]], [position.epoch, this.#epochs.next(), String(position.offset), isDifferent ? '1' : '', this.#linkOf(partition).serverRun])
  }

  #bringTurn (): void {
    const lines = [...this.#turn!]
    this.#turn = undefined
    this.#bring(lines)
  }

  #bring (lines: Line[]): void {
    const byLink = groupBy(lines, line => this.#linkOf(line.partition))
    for (const [link, lines] of byLink) {
      // Without a connection they wait until it is there.
      if (!link.isReady) {
        for (const line of lines) this.#late.add(line)
        continue
      }
      this.#subscribe(link, lines).then(() => this.#position(lines)).catch((error: unknown) => {
        // If the connection breaks, they are brought when it is back.
        if (!(error instanceof RedisAnswerError)) link.fault(asError(error))
        else if (isPassing(error)) setTimeout(() => { this.#bring(lines) }, retryAfter).unref()
        else this.#refuse(lines, error)
      })
    }
  }

  async #subscribe (link: Link, lines: Line[]): Promise<void> {
    await this.#ending
    const missing = lines.filter(line => !line.isSubscribed)
    for (const group of this.#settings.isCluster ? groupBy(missing, line => line.partition).values() : [missing]) {
      for (let i = 0; i < group.length; i += perCommand) {
        const batch = group.slice(i, i + perCommand)
        await link.subscribe(batch.map(line => line.channel))
        for (const line of batch) line.isSubscribed = true
      }
    }
  }

  /** Reads the positions of lines that are subscribed to, and answers those who wait for them. */
  async #position (lines: Line[]): Promise<void> {
    for (const line of lines) if (line.retention === undefined) this.#answer(line, null)
    await this.#readPositions(lines.filter(line => line.retention !== undefined), (line, position) => {
      if (line.isAttached && line.position === undefined) line.attachedAt({ epoch: position.epoch, offset: position.offset })
      const { base, ...attached } = position
      this.#answer(line, attached)
    })
  }

  async #readPositions (lines: Line[], take: (line: Line, position: BasedPosition) => void): Promise<void> {
    const groups = [...groupBy(lines, line => line.partition)].flatMap(([partition, group]) =>
      Array.from({ length: Math.ceil(group.length / perCommand) }, (_, i) => [partition, group.slice(i * perCommand, (i + 1) * perCommand)] as const))
    await Promise.all(groups.map(async ([partition, group]) => {
      const ttl = group.reduce((most, { retention }) => Math.max(most, retention!.ttl), 0)
      const positions = await this.#reader.positions(partition, group.map(line => line.topic), { ...group[0]!.retention!, ttl })
      group.forEach((line, i) => { take(line, positions[i]!) })
    }))
  }

  /** Looks whether the server still has what was delivered last, and begins new epochs if it has not. */
  async #findRollbacks (link: Link, lines: Line[]): Promise<void> {
    const logs = lines.filter(({ retention, position, uid }) => retention?.latest === false && position !== undefined && uid !== undefined)
    for (let i = 0; i < logs.length; i += perCommand) {
      const batch = logs.slice(i, i + perCommand)
      const answers = await Promise.all(link.send(batch.map(({ topic, position }) => ['XRANGE', this.#keys.topic(topic)[1], `${position!.offset}-0`, `${position!.offset}-0`])).map(answer => answer.catch(nothingKept)))
      await Promise.all(batch.map(async (line, i) => {
        const kept = (answers[i] as [Buffer, [Buffer, Buffer]][])[0]?.[1][1]
        if (kept === undefined) return
        const uid = decodePublication(line.topic, kept)?.publication.uid
        if (uid !== line.uid) await this.renew(line, true)
      }))
    }
  }

  #answer (line: Line, position: AttachedPosition | null): void {
    const waiters = this.#waiting.get(line)
    this.#waiting.delete(line)
    for (const { resolve } of waiters ?? []) resolve(position)
  }

  #refuse (lines: Line[], error: Error): void {
    for (const line of lines) {
      const waiters = this.#waiting.get(line)
      this.#waiting.delete(line)
      if (!line.isSubscribed) this.#forget(line)
      for (const { reject } of waiters ?? []) reject(error)
    }
  }

  #forget (line: Line): void {
    line.detach()
    this.#late.delete(line)
    if (this.#lines.get(line.topic) !== line) return
    this.#lines.delete(line.topic)
    this.#byChannel.delete(line.channel)
  }

  /** Ends subscriptions that have lingered. Without a connection, topics that were detached before they were subscribed to are forgotten, too: clients choose their names. */
  #sweep (now: number): void {
    const gone = [...this.#lines.values()].filter(line => !line.isAttached && line.lingersUntil <= now && (!this.#waiting.has(line) || !this.#linkOf(line.partition).isOpen))
    this.#refuse(gone, new Error('the topic was detached'))
    for (const line of gone) this.#forget(line)
    const ending: Promise<void>[] = []
    for (const [partition, lines] of groupBy(gone.filter(line => line.isSubscribed), line => this.#settings.isCluster ? line.partition : 0)) {
      for (let i = 0; i < lines.length; i += perCommand) ending.push(this.#linkOf(partition).unsubscribe(lines.slice(i, i + perCommand).map(line => line.channel)))
    }
    // If one fails, the connection has gone, and the subscriptions with it.
    if (ending.length > 0) this.#ending = Promise.allSettled(ending)
  }

  #scheduleCheck (): void {
    this.#checker = setTimeout(() => {
      this.check().catch(() => {}).finally(() => {
        if (!this.#isClosed) this.#scheduleCheck()
      })
    }, leastCheck + Math.random() * (mostCheck - leastCheck))
    this.#checker.unref()
  }

  /** Compares the positions of all lines with those of the server. */
  async check (): Promise<void> {
    const lines = [...this.#lines.values()].filter(line => line.isAttached && line.retention !== undefined && line.position !== undefined && this.#linkOf(line.partition).isReady)
    const seen = new Map(lines.map(line => [line, line.position!]))
    const behind: [Line, BasedPosition][] = []
    await this.#readPositions(lines, (line, top) => {
      const { epoch, offset } = seen.get(line)!
      if (line.position === undefined) return
      if (top.epoch !== epoch || top.offset < offset) line.mend()
      else if (top.offset > line.position.offset) behind.push([line, top])
    })
    if (behind.length === 0) return
    await new Promise(resolve => { setTimeout(resolve, onItsWay).unref() })
    for (const [line, top] of behind) {
      if (line.isAttached && line.position?.epoch === top.epoch && line.position.offset < top.offset) line.mend()
    }
  }
}

/** Answers for a topic whose messages are kept as values now, since a deploy. @throws any other error */
function nothingKept (error: unknown): RedisReply {
  if (error instanceof RedisAnswerError && error.word === 'WRONGTYPE') return []
  throw error
}
