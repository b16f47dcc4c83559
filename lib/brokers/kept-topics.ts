import type { EndReason, HistoryStats, Publication, Retention } from '../../types/index.ts'
import { KeptLog, type Kept } from './kept-log.ts'
import { KeptValues } from './kept-values.ts'

/** The position of a topic, and the messages that it keeps. */
export interface Log {
  readonly topic: string
  readonly epoch: string
  /** The offset of the last publication. */
  offset: number
  isAttached: boolean
  /** `undefined` if the topic keeps no messages. */
  retention: Retention | undefined
  /** The kept messages; `undefined` if there are none. */
  kept: Kept | undefined
  /** When the kept messages expire, on the clock of `performance`. */
  expiresAt: number
  /** The last publication has ended the topic. */
  ended: EndReason | undefined
  /** Since when the topic has neither members nor kept messages. */
  quietSince: number
}

/** Milliseconds between two looks for messages that have expired. */
const sweepEvery = 1_000
/** A topic keeps its position for 30 days after its messages, so that a client that comes back in time learns that it has missed some. */
const quietFor = 30 * 86_400_000
/** Most topics that have nothing but a position. Each costs some 300 bytes. */
const mostQuiet = 100_000
/** `limits.history` by default. */
const defaultBytes = 268_435_456

/** Bytes that a topic with kept messages counts besides them: its entry, and a slab that is mostly empty. 1,900 were measured on Node.js 20. */
const topicBytes = 1_536

/** The messages that all topics of a memory broker keep: bounded for each topic and for all of them. */
export class KeptTopics {
  /** Most bytes of all kept messages, those of the topics themselves included. */
  mostBytes = defaultBytes
  /** Topics with kept messages; those that were quiet longest come first. */
  readonly #filled = new Set<Log>()
  /** Topics without members and without kept messages; those that are quiet longest come first. */
  readonly #quiet = new Set<Log>()
  readonly #drop: (topic: string) => void
  #bytes = 0
  #evicted = 0
  #timer: NodeJS.Timeout | undefined

  /** @param drop - forgets the position of a topic */
  constructor (drop: (topic: string) => void) {
    this.#drop = drop
  }

  stats (): HistoryStats {
    let messages = 0
    for (const { kept } of this.#filled) messages += kept!.count
    return { topics: this.#filled.size, messages, bytes: this.#bytes, evicted: this.#evicted }
  }

  /** The messages that a topic keeps now; `undefined` if there are none. */
  of (log: Log): Kept | undefined {
    if (log.expiresAt <= performance.now()) this.#clear(log)
    return log.kept
  }

  /** Keeps the message of a topic's newest offset. Call `of` before, which drops messages that have expired. */
  append (log: Log, publication: Publication): void {
    const now = performance.now()
    const retention = log.retention!
    log.kept ??= retention.latest ? new KeptValues(retention, log.offset - 1) : new KeptLog(retention, log.offset - 1)
    const { kept } = log
    const before = kept.bytes
    kept.append(log.offset, publication)
    this.#bytes += kept.bytes - before
    log.expiresAt = now + retention.ttl
    this.#quiet.delete(log)
    this.#filled.delete(log)
    this.#filled.add(log)
    if (this.#counted > this.mostBytes) this.#evict()
    this.#startTimer()
  }

  /** Applies other bounds to a topic. Values and messages are kept in different ways, so that none are left if the way changes. */
  retain (log: Log, retention: Retention): void {
    const before = log.retention
    if (before !== undefined && before.size === retention.size && before.bytes === retention.bytes && before.ttl === retention.ttl && before.latest === retention.latest) return
    log.retention = retention
    const { kept } = log
    if (kept === undefined) return
    if (before!.latest !== retention.latest) {
      this.#clear(log)
      return
    }
    this.#bytes -= kept.bytes
    kept.retain(retention)
    this.#bytes += kept.bytes
  }

  attached (log: Log): void {
    this.#quiet.delete(log)
  }

  detached (log: Log): void {
    if (log.kept === undefined) this.#quieten(log)
  }

  close (): void {
    clearInterval(this.#timer)
    this.#timer = undefined
    this.#filled.clear()
    this.#quiet.clear()
    this.#bytes = 0
  }

  /** Bytes that count against the bound. */
  get #counted (): number { return this.#bytes + this.#filled.size * topicBytes }

  /** Drops the messages of the topics that were quiet longest. The newest topic keeps those that fit. */
  #evict (): void {
    for (const log of this.#filled) {
      if (this.#counted <= this.mostBytes) return
      this.#evicted++
      if (this.#filled.size > 1) this.#clear(log)
      else {
        const kept = log.kept!
        for (; this.#counted > this.mostBytes && kept.count > 1; this.#bytes = kept.bytes) kept.dropOldest()
      }
    }
  }

  #clear (log: Log): void {
    this.#bytes -= log.kept!.bytes
    log.kept = undefined
    log.expiresAt = Infinity
    this.#filled.delete(log)
    if (!log.isAttached) this.#quieten(log)
  }

  #quieten (log: Log): void {
    log.quietSince = performance.now()
    this.#quiet.add(log)
    if (this.#quiet.size > mostQuiet) {
      const [oldest] = this.#quiet
      this.#forget(oldest!)
    }
    this.#startTimer()
  }

  #forget (log: Log): void {
    this.#quiet.delete(log)
    this.#drop(log.topic)
  }

  #startTimer (): void {
    this.#timer ??= setInterval(() => { this.#sweep(performance.now()) }, sweepEvery).unref()
  }

  #sweep (now: number): void {
    for (const log of this.#filled) if (log.expiresAt <= now) this.#clear(log)
    for (const log of this.#quiet) {
      if (log.quietSince + quietFor > now) break
      this.#forget(log)
    }
    if (this.#filled.size > 0 || this.#quiet.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}
