import type { Outcome, Publication } from '../../types/index.ts'
import type { RedisReply } from '../../types/redis.ts'
import { encodeMessage, encodePublication } from './codec.ts'
import type { Epochs } from './epochs.ts'
import type { Keys } from './keys.ts'
import type { Line } from './line.ts'
import { isPassing, type Link } from './link.ts'
import { RedisAnswerError } from './answer-error.ts'
import { argumentsOf, outcomeOf } from './publish-call.ts'
import { publishScript } from './script.ts'

/** Most publications that wait for an answer, and most of their bytes. */
const mostPending = 20_000
const mostPendingBytes = 33_554_432
/** Most publications of a topic in one call, and their bytes: a script stops the server while it runs. */
const mostPerCall = 64
const mostCallBytes = 262_144
/** Milliseconds between two looks for deadlines. Publications that were not sent are given up that much before. */
const sweepEvery = 100
/** Milliseconds after which a call is sent again, which the server could not execute. */
const retryAfter = 100
/** Milliseconds between two renewals of the time to live of metadata and fences, of which the shorter one is 10 minutes: each renewal costs the server. */
const renewEvery = 60_000

const failed: Outcome = { state: 'failed' }
const unknown: Outcome = { state: 'unknown' }

interface Pending {
  readonly publication: Publication
  readonly bytes: Buffer
  /** The line that will bring its entry, and its losses at the beginning. */
  readonly line: Line | undefined
  readonly losses: number
  isDelivered: boolean
  /** The answer, while the entry is to come. */
  outcome: Outcome | undefined
  settle: ((outcome: Outcome) => void) | undefined
}

/** Publications of a topic in one step. */
interface Call {
  readonly seq: number
  readonly pending: readonly Pending[]
  isInFlight: boolean
  /** It renews the time to live of its topic. */
  isRenewing: boolean
  /** It was sent, and the connection broke before the answer. */
  isUnknown: boolean
}

/** The publications of a topic. Only one call of it is in flight, so that what is sent again keeps its place, and a fence knows the latest call alone. */
interface Queue {
  readonly topic: string
  readonly partition: number
  readonly waiting: Pending[]
  call: Call | undefined
}

export interface OutgoingPorts {
  readonly node: string
  readonly isCluster: boolean
  /** The line of a topic that is attached. */
  line (topic: string): Line | undefined
  linkOf (partition: number): Link
}

/** Publications on their way to the server, and their outcomes. */
export class Outgoing {
  fenced = 0
  readonly #keys: Keys
  readonly #epochs: Epochs
  readonly #ports: OutgoingPorts
  readonly #queues = new Map<string, Queue>()
  /** Queues with publications to be sent in this turn. */
  readonly #dirty = new Set<Queue>()
  /** By uid: all that are not settled. */
  readonly #pending = new Map<string, Pending>()
  #bytes = 0
  /** Topics that keep nothing, with the number of publications whose entries come from the server: what follows comes from there, too, in its place. */
  readonly #relayed = new Map<string, number>()
  /** Publications of topics that keep nothing, to be sent in this turn. */
  #plain: Pending[] = []
  #calls = 0
  /** Topics whose time to live was renewed within the last interval, and the end of it. */
  readonly #renewed = new Set<string>()
  #renewAt = 0
  #turn: NodeJS.Immediate | undefined
  #timer: NodeJS.Timeout | undefined

  constructor (keys: Keys, epochs: Epochs, ports: OutgoingPorts) {
    this.#keys = keys
    this.#epochs = epochs
    this.#ports = ports
  }

  get size (): number { return this.#pending.size }
  get bytes (): number { return this.#bytes }

  /** Whether the entry of a publication comes from the server; else this node delivers it at once. */
  isRelayed ({ topic, retention, mid }: Publication): boolean {
    return retention !== undefined || mid !== undefined || this.#relayed.has(topic)
  }

  publish (publication: Publication): Promise<Outcome> {
    const { topic, uid, retention, whenDown } = publication
    const isRelayed = this.isRelayed(publication)
    const partition = this.#keys.partitionOf(topic)
    const link = this.#ports.linkOf(partition)
    // A topic that keeps nothing is not held for a server that is away.
    const isAway = (retention === undefined && !link.isOpen) || (whenDown === 'fail' && !link.isReady)
    if (isAway || this.#pending.size >= mostPending || this.#bytes > mostPendingBytes) return Promise.resolve(failed)
    const line = isRelayed ? this.#ports.line(topic) : undefined
    const bytes = encodePublication(publication, isRelayed && retention === undefined)
    const pending: Pending = { publication, bytes, line, losses: line?.losses ?? 0, isDelivered: false, outcome: undefined, settle: undefined }
    this.#pending.set(uid, pending)
    this.#bytes += bytes.length
    if (isRelayed && retention === undefined) this.#relayed.set(topic, (this.#relayed.get(topic) ?? 0) + 1)
    if (isRelayed) {
      let queue = this.#queues.get(topic)
      if (queue === undefined) this.#queues.set(topic, queue = { topic, partition, waiting: [], call: undefined })
      queue.waiting.push(pending)
      this.#dirty.add(queue)
    } else this.#plain.push(pending)
    this.#turn ??= setImmediate(this.#flush)
    this.#timer ??= setInterval(() => { this.#sweep() }, sweepEvery).unref()
    return new Promise(resolve => { pending.settle = resolve })
  }

  /** The entry of a publication of this node was delivered. */
  delivered (uid: string): void {
    const pending = this.#pending.get(uid)
    if (pending === undefined) return
    pending.isDelivered = true
    if (pending.outcome !== undefined) this.#settle(pending, pending.outcome)
  }

  /** A line has lost publications, or is no longer attached: answers need not wait for entries. */
  review (line: Line): void {
    for (const pending of this.#pending.values()) {
      if (pending.line === line && pending.outcome !== undefined) this.#settle(pending, pending.outcome)
    }
  }

  /** Sends what waits for a connection: first the calls whose answers were lost, as they were. */
  resume (): void {
    for (const queue of this.#queues.values()) this.#dirty.add(queue)
    this.#turn ??= setImmediate(this.#flush)
  }

  close (): void {
    clearImmediate(this.#turn)
    clearInterval(this.#timer)
    for (const pending of [...this.#pending.values()]) this.#settle(pending, pending.outcome ?? unknown)
    this.#queues.clear()
  }

  readonly #flush = (): void => {
    this.#turn = undefined
    const calls = new Map<Link, { queue: Queue, call: Call }[]>()
    for (const queue of this.#dirty) {
      const link = this.#ports.linkOf(queue.partition)
      if (!link.isReady) giveUp(queue, ({ publication }) => publication.whenDown === 'fail', this.#fail)
      if (!link.isReady || queue.call?.isInFlight === true) continue
      const call = this.#next(queue)
      if (call === undefined) continue
      const list = calls.get(link)
      if (list === undefined) calls.set(link, [{ queue, call }])
      else list.push({ queue, call })
    }
    this.#dirty.clear()
    for (const [link, list] of calls) {
      const answers = link.run(publishScript, list.map(({ queue, call }) => this.#arguments(queue, call)))
      answers.forEach((answer, i) => {
        const { queue, call } = list[i]!
        call.isInFlight = true
        answer.then(reply => { this.#answered(queue, call, reply as RedisReply[]) }, (error: unknown) => { this.#refused(queue, call, error) })
      })
    }
    this.#sendPlain()
  }

  #sendPlain (): void {
    const plain = this.#plain
    this.#plain = []
    const command = this.#ports.isCluster ? 'SPUBLISH' : 'PUBLISH'
    const byLink = new Map<Link, Pending[]>()
    for (const pending of plain) {
      const link = this.#ports.linkOf(this.#keys.partitionOf(pending.publication.topic))
      const list = byLink.get(link)
      if (list === undefined) byLink.set(link, [pending])
      else list.push(pending)
    }
    for (const [link, list] of byLink) {
      const answers = link.send(list.map(({ publication, bytes }) => [command, this.#keys.channel(publication.topic), encodeMessage(bytes)]))
      answers.forEach((answer, i) => {
        answer.then(() => { this.#settle(list[i]!, { state: 'ok' }) }, (error: unknown) => { this.#settle(list[i]!, error instanceof RedisAnswerError ? failed : unknown) })
      })
    }
  }

  /** The call to send: one that was not answered, or the next publications. */
  #next (queue: Queue): Call | undefined {
    const { call, waiting } = queue
    if (call !== undefined) {
      const open = call.pending.filter(pending => this.#isOpen(pending))
      // A call whose publications have all been given up is not sent again.
      if (open.length > 0 && (call.isUnknown || open.length === call.pending.length)) return call
      // One that was refused has done nothing: those that were given up meanwhile must not go with the others.
      waiting.unshift(...open)
      queue.call = undefined
    }
    const pending: Pending[] = []
    let bytes = 0
    const keeps = waiting[0]?.publication.retention !== undefined
    while (waiting.length > 0 && pending.length < mostPerCall && bytes < mostCallBytes && (waiting[0]!.publication.retention !== undefined) === keeps) {
      const next = waiting.shift()!
      pending.push(next)
      bytes += next.bytes.length
    }
    if (pending.length === 0) {
      if (waiting.length === 0) this.#queues.delete(queue.topic)
      return undefined
    }
    queue.call = { seq: ++this.#calls, pending, isInFlight: false, isRenewing: false, isUnknown: false }
    return queue.call
  }

  #arguments ({ topic, partition }: Queue, call: Call): ReturnType<typeof argumentsOf> {
    const { node, isCluster } = this.#ports
    const run = this.#ports.linkOf(partition).serverRun
    const now = performance.now()
    if (now >= this.#renewAt) {
      this.#renewed.clear()
      this.#renewAt = now + renewEvery
    }
    const isRenewing = call.isRenewing = !this.#renewed.has(topic)
    const { seq, pending } = call
    return argumentsOf({ keys: this.#keys, topic, isCluster, node, seq, epoch: this.#epochs.next(), position: this.#ports.line(topic)?.position, run, isRenewing }, pending)
  }

  #answered (queue: Queue, call: Call, [kind, answer]: RedisReply[]): void {
    this.#done(queue, call)
    if (String(kind) === 'fenced') this.fenced++
    else if (String(kind) === 'done' && call.isRenewing) this.#renewed.add(queue.topic)
    const [epoch, ...words] = String(answer).split(' ') as [string, ...string[]]
    call.pending.forEach((pending, i) => { this.#decide(pending, outcomeOf(epoch, words[i])) })
  }

  #refused (queue: Queue, call: Call, error: unknown): void {
    call.isInFlight = false
    const keeps = call.pending[0]!.publication.retention !== undefined
    if (isPassing(error) && keeps) setTimeout(() => { this.#wake(queue) }, retryAfter).unref()
    else if (error instanceof RedisAnswerError) {
      this.#done(queue, call)
      for (const pending of call.pending) this.#settle(pending, call.isUnknown ? unknown : failed)
    } else {
      call.isUnknown = true
      // Without a fence it cannot be repeated.
      if (keeps) return
      this.#done(queue, call)
      for (const pending of call.pending) this.#settle(pending, unknown)
    }
  }

  #done (queue: Queue, call: Call): void {
    if (queue.call === call) queue.call = undefined
    this.#wake(queue)
  }

  #wake (queue: Queue): void {
    if (this.#queues.get(queue.topic) !== queue) return
    // One with nothing left is removed when it is its turn.
    this.#dirty.add(queue)
    this.#turn ??= setImmediate(this.#flush)
  }

  /** Settles a publication that was answered, unless its entry is to come. */
  #decide (pending: Pending, outcome: Outcome): void {
    const { line, losses, isDelivered } = pending
    if (outcome.state !== 'ok' || line === undefined || isDelivered || line.losses !== losses || this.#ports.line(line.topic) !== line) this.#settle(pending, outcome)
    else pending.outcome = outcome
  }

  #isOpen ({ publication: { uid } }: Pending): boolean { return this.#pending.has(uid) }

  #settle (pending: Pending, outcome: Outcome): void {
    const { publication: { uid, topic, retention }, bytes } = pending
    if (this.#pending.get(uid) !== pending) return
    this.#pending.delete(uid)
    const relayed = retention === undefined ? this.#relayed.get(topic) : undefined
    if (relayed !== undefined) this.#relayed.set(topic, relayed - 1)
    if (relayed === 1) this.#relayed.delete(topic)
    this.#bytes -= bytes.length
    pending.settle?.(outcome)
    if (this.#pending.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  readonly #fail = (pending: Pending): void => { this.#settle(pending, failed) }

  /** Gives up publications whose deadline has come: `failed` if they were never sent. */
  #sweep (): void {
    const now = Date.now()
    for (const queue of this.#queues.values()) {
      const { call } = queue
      const isSent = call?.isInFlight === true || call?.isUnknown === true
      for (const pending of call?.pending ?? []) if (pending.publication.deadline <= now + (isSent ? 0 : sweepEvery)) this.#settle(pending, isSent ? unknown : failed)
      giveUp(queue, ({ publication }) => publication.deadline <= now + sweepEvery, this.#fail)
    }
    for (const pending of this.#pending.values()) if (pending.publication.deadline <= now) this.#settle(pending, pending.outcome ?? unknown)
  }
}

/** Takes publications out of a queue that were never sent. */
function giveUp ({ waiting }: Queue, isDue: (pending: Pending) => boolean, take: (pending: Pending) => void): void {
  const due = new Set(waiting.filter(isDue))
  if (due.size === 0) return
  waiting.splice(0, waiting.length, ...waiting.filter(pending => !due.has(pending)))
  due.forEach(take)
}
