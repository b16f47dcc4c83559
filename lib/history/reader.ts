import { FST_ROOMS_BROKER_SILENT, FST_ROOMS_CLOSED } from '../errors.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import { isEndedAt, nothingKept, readPage, type Page, type PageRequest } from './read.ts'
import type { HistorySource } from './replay.ts'

/** Reads the messages that topics keep, without joining them. */
export class HistoryReader {
  readonly #source: HistorySource
  readonly #timeout: number
  readonly #isClosed: () => boolean

  /** @param timeout - milliseconds that the source waits for the broker */
  constructor (source: HistorySource, timeout: number, isClosed: () => boolean) {
    this.#source = source
    this.#timeout = timeout
    this.#isClosed = isClosed
  }

  /**
   * Reads a page of a topic's kept messages.
   * @throws FST_ROOMS_CLOSED, FST_ROOMS_BROKER_SILENT
   */
  async page ({ history }: TopicDefinition, topic: string, request: PageRequest): Promise<Page> {
    if (this.#isClosed()) throw new FST_ROOMS_CLOSED()
    if (history === null) return nothingKept
    return await readPage(this.#source, topic, history, request) ?? this.#silent(topic)
  }

  /**
   * Whether a topic has ended, and nothing follows a position. Without a position: whether it has ended.
   * @throws FST_ROOMS_CLOSED, FST_ROOMS_BROKER_SILENT
   */
  async isEndedAt ({ history }: TopicDefinition, topic: string, since?: string): Promise<boolean> {
    if (this.#isClosed()) throw new FST_ROOMS_CLOSED()
    if (history === null) return false
    return await isEndedAt(this.#source, topic, history, since) ?? this.#silent(topic)
  }

  #silent (topic: string): never {
    throw new FST_ROOMS_BROKER_SILENT(`history of topic "${topic}"`, this.#timeout)
  }
}
