import type { HistoryPage, KeptEnd, KeptMessage, KeptMessages, Position, StoredMessage } from '../../types/index.ts'
import { proceed } from '../proceed.ts'
import { formatPosition, parsePosition } from '../protocol/position.ts'
import { endText, splitEnd } from './end.ts'
import { newestOfEachKey, type HistorySource } from './replay.ts'
import type { HistoryRule } from './rule.ts'
import { isSkipped } from './skips.ts'

/** Most bytes of one page, unless a single message is larger. */
const pageBytes = 1_048_576

/** A page of a topic's kept messages. */
export interface PageRequest {
  /** As in the URL of a join. Absent: the newest messages. */
  readonly since?: string | undefined
  readonly limit: number
}

/** A page of kept messages, as the broker gave them. */
export interface Page {
  /** The position up to which the page goes; `undefined` if the topic has none. */
  readonly position: Position | undefined
  readonly messages: readonly KeptMessage[]
  /** `undefined` if the request named no position. */
  readonly recovered: boolean | undefined
  readonly complete: boolean
  /** The end of a stream, from its reason on, as JSON; `undefined` if the page does not go up to it. */
  readonly ended?: string
}

/** The page of a topic that keeps no messages. */
export const nothingKept: Page = Object.freeze({ position: undefined, messages: [], recovered: undefined, complete: false })

function storedMessage (epoch: string, { offset, tail }: KeptMessage): StoredMessage<any> {
  // A tail is the end of a frame: `"data":…` and the sender, the key.
  return { id: formatPosition({ epoch, offset }), ...JSON.parse(`{${tail.toString()}`) as Omit<StoredMessage<any>, 'id'> }
}

/** Returns a page as `rooms.history` gives it. */
export function keptMessages ({ position, messages, recovered, complete, ended }: Page): KeptMessages<any> {
  if (position === undefined) return { messages: [], complete }
  return {
    id: formatPosition(position),
    messages: messages.map(message => storedMessage(position.epoch, message)),
    ...(recovered === undefined ? {} : { recovered }),
    complete,
    ...(ended === undefined ? {} : { ended: JSON.parse(endText(position, ended)) as KeptEnd })
  }
}

/** The newest message of each key, at most so many. */
function newestValues (messages: readonly KeptMessage[], limit: number): KeptMessage[] {
  const values = newestOfEachKey(messages).slice(-limit)
  let bytes = 0
  const first = values.findLastIndex(({ tail }) => (bytes += tail.length) > pageBytes)
  // A value that is larger than a page comes alone.
  return values.slice(Math.min(first + 1, values.length - 1))
}

/** The newest messages that are kept, up to the top. */
function newest ({ position, messages: kept, from, skips = [], ended: reason }: HistoryPage, { since, limit }: PageRequest): Page {
  const { messages, ended } = reason === undefined ? { messages: kept } : splitEnd(kept, reason)
  const chosen = since === 'latest' ? newestValues(messages, limit) : messages.slice(-limit)
  const count = chosen.length + kept.length - messages.length
  return { position, messages: chosen, recovered: undefined, complete: from === 0 && count === position.offset - skips.reduce((sum, { after, to }) => sum + to - after, 0), ...(ended === undefined ? {} : { ended }) }
}

/**
 * Reads a page of a topic's kept messages.
 * @returns `undefined` if the broker does not answer
 */
export async function readPage (source: HistorySource, topic: string, rule: HistoryRule, request: PageRequest): Promise<Page | undefined> {
  const { since, limit } = request
  const known = since === undefined ? null : parsePosition(since)
  if (known !== null) {
    const page = await source.read(topic, { after: known.offset, limit, bytes: pageBytes, retention: rule })
    if (page === undefined) return undefined
    const isLarger = page.messages.length === 0 && known.offset < page.position.offset
    // A message that is larger than a page comes alone.
    const found = isLarger ? await source.read(topic, { after: known.offset, limit: 1, bytes: Infinity, retention: rule }) : page
    if (found === undefined) return undefined
    const { position: { epoch, offset }, messages, from, skips = [] } = found
    if (known.epoch === epoch && known.offset <= offset && from <= known.offset && !isSkipped(skips, known.offset)) {
      const last = messages.at(-1)?.offset ?? known.offset
      const page = { position: { epoch, offset: last }, messages, recovered: true, complete: last === offset }
      return found.ended === undefined || last !== offset ? page : { ...page, ...splitEnd(messages, found.ended) }
    }
  }
  const all = since === 'latest'
  let page = await source.read(topic, { limit: all ? Infinity : limit, bytes: all ? Infinity : pageBytes, retention: rule })
  // The newest message is larger than a page.
  if (page !== undefined && page.messages.length === 0 && page.from < page.position.offset) page = await source.read(topic, { limit: 1, bytes: Infinity, retention: rule })
  // The end of a stream is not one of the messages that were asked for.
  if (page?.ended !== undefined && page.messages.length === limit) page = await source.read(topic, { limit: limit + 1, bytes: pageBytes, retention: rule })
  if (page === undefined) return undefined
  const found = newest(page, request)
  return known === null ? found : { ...found, recovered: false, complete: false }
}

/**
 * Whether a topic has ended, and nothing follows a position. Without a position: whether it has ended.
 * @returns `undefined` if the broker does not answer
 */
export function isEndedAt (source: HistorySource, topic: string, rule: HistoryRule, since?: string): boolean | undefined | Promise<boolean | undefined> {
  return proceed<HistoryPage | undefined, boolean | undefined>(source.read(topic, { limit: 1, bytes: 0, retention: rule }), page => {
    if (page?.ended === undefined) return page === undefined ? undefined : false
    const known = since === undefined ? page.position : parsePosition(since)
    return known !== null && known.epoch === page.position.epoch && known.offset >= page.position.offset
  })
}
