import type { BrokerPresence, PresenceChange, PresenceOutcome } from '../../types/index.ts'
import { asError } from '../error-utils.ts'
import { FST_ROOMS_BROKER_DOWN, FST_ROOMS_BROKER_FAULT, FST_ROOMS_BROKER_SILENT } from '../errors.ts'
import { within } from '../feed/within.ts'
import { checkCounts, checkOutcomes, checkPage, checkTopics, type MembersPage } from './check.ts'

/** Milliseconds for each answer of the broker about members. */
const timeout = 5_000

export interface PresenceLinkPorts {
  /** The broker is connected, so that it owes an answer. */
  isUp (): boolean
  /** The broker has broken its contract, or has not answered although it is connected. */
  fault (error: Error): void
}

/**
 * The members that a broker notes for all nodes, as the hub may rely on them: each call ends in time, and each answer is checked.
 *
 * All calls reject with FST_ROOMS_BROKER_SILENT after 5 s, with FST_ROOMS_BROKER_DOWN if the broker rejects, and with FST_ROOMS_BROKER_FAULT if its answer cannot be read.
 */
export class PresenceLink {
  readonly #presence: BrokerPresence
  readonly #infoLimit: number
  readonly #ports: PresenceLinkPorts

  /** @param infoLimit - bytes of the info of a member, as JSON */
  constructor (presence: BrokerPresence, infoLimit: number, ports: PresenceLinkPorts) {
    this.#presence = presence
    this.#infoLimit = infoLimit
    this.#ports = ports
  }

  change (changes: PresenceChange[]): Promise<PresenceOutcome[]> {
    return this.#ask('a change of presence', () => this.#presence.change(changes), answer => checkOutcomes(answer, changes.length))
  }

  read (topic: string, limit: number): Promise<MembersPage> {
    return this.#ask(`the members of topic "${topic}"`, () => this.#presence.read(topic, limit), answer => {
      const page = checkPage(topic, answer, limit, this.#infoLimit)
      this.refused(topic, page.refused)
      return page
    })
  }

  report (counts: ReadonlyMap<string, number>): Promise<void> {
    return this.#ask('a report of members', () => this.#presence.report(counts), () => {})
  }

  counts (topics: string[]): Promise<number[]> {
    return this.#ask('the numbers of members', () => this.#presence.counts(topics), answer => checkCounts(answer, topics.length))
  }

  topics (limit: number): Promise<string[]> {
    return this.#ask('the topics', () => this.#presence.topics(limit), checkTopics)
  }

  /** Reports members that were left out. */
  refused (topic: string, count: number): void {
    if (count > 0) this.#ports.fault(new FST_ROOMS_BROKER_FAULT(`${count} members of topic "${topic}" are left out, because they cannot be read`))
  }

  async #ask<T> (what: string, call: () => Promise<unknown>, check: (answer: unknown) => T): Promise<T> {
    try {
      return check(await within(call(), timeout, what))
    } catch (thrown) {
      const error = asError(thrown)
      const isFault = error instanceof FST_ROOMS_BROKER_FAULT
      if (isFault || this.#ports.isUp()) this.#ports.fault(error)
      if (isFault || error instanceof FST_ROOMS_BROKER_SILENT) throw error
      throw Object.assign(new FST_ROOMS_BROKER_DOWN(), { cause: error })
    }
  }
}
