import { createHash, randomBytes } from 'node:crypto'
import type { AttachedPosition, HistoryPage, HistoryQuery, HistoryStats, Outcome, Position, Publication, Retention } from '../../types/index.ts'
import { Expiring } from './expiring.ts'
import { KeptTopics, type Log } from './kept-topics.ts'

const delivered: Outcome = { state: 'ok' }
const stale: Outcome = { state: 'stale' }
const ended: Outcome = { state: 'ended' }

/** Milliseconds for which a `mid` is remembered, and most of them. */
const midsFor = 300_000
const mostMids = 1_000_000

/**
 * The state of all topics of a broker that keeps it in this process: positions, kept messages, ends and the `mid`s of the last minutes. All of it is synchronous, so
 * that each call is one atomic step.
 */
export class TopicStore {
  readonly #topics = new Map<string, Log>()
  readonly #kept = new KeptTopics(topic => { this.#forget(topic) })
  /** The positions of publications that came with a `mid`, by topic and `mid`. Each costs some 250 bytes. */
  readonly #mids = new Expiring<Position | undefined>(midsFor, mostMids)
  readonly #deliver: (topic: string, publication: Publication, position: Position) => void
  /** The epochs of topics that keep messages are made of their names and of this, so that a topic without a publication needs no memory for its first position. */
  #salt = randomBytes(16)

  /** @param deliver - called for each accepted publication of an attached topic, before `publish` returns */
  constructor (deliver: (topic: string, publication: Publication, position: Position) => void) {
    this.#deliver = deliver
  }

  /** Most bytes of all kept messages. */
  get mostBytes (): number { return this.#kept.mostBytes }
  set mostBytes (bytes: number) { this.#kept.mostBytes = bytes }

  attach (topic: string, retention?: Retention): AttachedPosition {
    const log = this.#enter(topic, retention)
    log.isAttached = true
    this.#kept.attached(log)
    return { epoch: log.epoch, offset: log.offset, ...(log.ended === undefined ? {} : { ended: log.ended }) }
  }

  detach (topic: string): void {
    const log = this.#topics.get(topic)
    if (log === undefined) return
    log.isAttached = false
    if (log.retention === undefined || log.offset === 0) this.#topics.delete(topic)
    else this.#kept.detached(log)
  }

  publish (publication: Publication): Outcome {
    const { topic, retention, mid } = publication
    if (mid !== undefined) {
      const first = this.#mids.find(`${topic} ${mid}`)
      if (first !== undefined) return { state: 'duplicate', ...(first.value === undefined ? {} : { position: first.value }) }
    }
    const outcome = this.#append(publication, retention === undefined ? this.#topics.get(topic) : this.#enter(topic, retention))
    if (mid !== undefined && outcome.state === 'ok') this.#mids.add(`${topic} ${mid}`, outcome.position)
    return outcome
  }

  history (topic: string, query: HistoryQuery): HistoryPage {
    const log = this.#topics.get(topic)
    // Any client may read any name. That must not cost the positions of other topics.
    if (log === undefined) return { position: { epoch: this.#firstEpoch(topic), offset: 0 }, messages: [], from: 0 }
    const { epoch, offset, ended } = log
    const kept = this.#kept.of(log)
    return { position: { epoch, offset }, messages: kept?.read(query) ?? [], from: kept?.from ?? offset, ...(ended === undefined ? {} : { ended }) }
  }

  stats (): HistoryStats {
    return this.#kept.stats()
  }

  close (): void {
    this.#topics.clear()
    this.#kept.close()
    this.#mids.clear()
  }

  #append (publication: Publication, log: Log | undefined): Outcome {
    if (log === undefined) return delivered
    if (log.ended !== undefined) return ended
    if (log.retention !== undefined && this.#kept.of(log)?.isStale(publication) === true) return stale
    const position = { epoch: log.epoch, offset: ++log.offset }
    if (log.retention !== undefined) this.#kept.append(log, publication)
    if (publication.end !== undefined) log.ended = publication.end
    if (log.isAttached) this.#deliver(log.topic, publication, position)
    return { state: 'ok', position }
  }

  #enter (topic: string, retention: Retention | undefined): Log {
    let log = this.#topics.get(topic)
    if (log === undefined) this.#topics.set(topic, log = { topic, epoch: retention === undefined ? randomBytes(8).toString('hex') : this.#firstEpoch(topic), offset: 0, isAttached: false, retention, kept: undefined, expiresAt: Infinity, ended: undefined, quietSince: 0 })
    // Hosts of two versions may publish to one topic.
    else if (retention !== undefined && retention !== log.retention) this.#kept.retain(log, retention)
    return log
  }

  #firstEpoch (topic: string): string {
    return createHash('sha256').update(this.#salt).update(topic).digest('hex').slice(0, 16)
  }

  #forget (topic: string): void {
    this.#topics.delete(topic)
    // The topic must not begin again with the epoch that it had.
    this.#salt = randomBytes(16)
  }
}
