import assert from 'node:assert/strict'
import type { Retention } from '../../types/index.ts'
import type { Case, Stage } from './case.ts'
import { roomy, type Node } from './node.ts'

/** A client that comes back: the messages of its topic, its position, and the answer that is right. */
interface Recovery {
  readonly name: string
  /** Messages that the topic keeps. */
  readonly size?: number
  /** Bytes of messages that the topic keeps, as a number of messages. */
  readonly fits?: number
  /** The messages have keys: two, in turns, of which the newest are kept. */
  readonly latest?: true
  readonly published: number
  /** The kept messages expire before the client comes back. */
  readonly expired?: true
  /** Messages that are published after that. */
  readonly then?: number
  /** The last publication ends the topic. */
  readonly ended?: true
  /** The offset that the client has. */
  readonly since: number
  /** The client has the position of another epoch. */
  readonly foreign?: true
  /** The messages that it gets; `false`: it is told that some are missing. */
  readonly recovers: number | false
}

/** Cases of recovery, as the tests of centrifuge (Go) have them, and those of bytes, keys and ends. */
const recoveries: readonly Recovery[] = [
  { name: 'nothing was published', published: 0, since: 0, recovers: 0 },
  { name: 'from the first position, everything is kept', size: 10, published: 10, since: 0, recovers: 10 },
  { name: 'from a position inside', size: 10, published: 10, since: 8, recovers: 2 },
  { name: 'from the position of the last message', size: 10, published: 10, since: 10, recovers: 0 },
  { name: 'from the position before the oldest kept message', size: 5, published: 10, since: 5, recovers: 5 },
  { name: 'one message before that is gone', size: 5, published: 10, since: 4, recovers: false },
  { name: 'from the first position, the first messages are gone', size: 5, published: 10, since: 0, recovers: false },
  { name: 'a topic of one message, from the position before it', size: 1, published: 7, since: 6, recovers: 1 },
  { name: 'a topic of one message, two positions before the last', size: 1, published: 7, since: 5, recovers: false },
  { name: 'from a position ahead of the last message', size: 10, published: 10, since: 11, recovers: false },
  { name: 'from a position far ahead', size: 10, published: 10, since: 1_000, recovers: false },
  { name: 'ahead of a topic without messages', published: 0, since: 1, recovers: false },
  { name: 'the offset of the last message, in another epoch', size: 10, published: 10, since: 10, foreign: true, recovers: false },
  { name: 'the first position, in another epoch', published: 0, since: 0, foreign: true, recovers: false },
  { name: 'an offset inside, in another epoch', size: 10, published: 10, since: 5, foreign: true, recovers: false },
  { name: 'bytes are exceeded, from the position before the oldest kept message', fits: 3, published: 10, since: 7, recovers: 3 },
  { name: 'bytes are exceeded, one message before that is gone', fits: 3, published: 10, since: 6, recovers: false },
  { name: 'newest values, behind the last one that was replaced', latest: true, published: 6, since: 4, recovers: 2 },
  { name: 'newest values, one that was replaced is missing', latest: true, published: 6, since: 3, recovers: false },
  { name: 'a topic that has ended, from the position before its end', published: 3, ended: true, since: 3, recovers: 1 },
  { name: 'a topic that has ended, from its end', published: 3, ended: true, since: 4, recovers: 0 },
  { name: 'all has expired, from the position of the last message', published: 10, expired: true, since: 10, recovers: 0 },
  { name: 'all has expired, from the position before the last message', published: 10, expired: true, since: 9, recovers: false },
  { name: 'all has expired, from the first position', published: 10, expired: true, since: 0, recovers: false },
  { name: 'expired, then more, from the last one that expired', published: 4, expired: true, then: 2, since: 4, recovers: 2 },
  { name: 'expired, then more, from a position before that', published: 4, expired: true, then: 2, since: 3, recovers: false }
]

/** Milliseconds for which the topics of cases of expiry keep their messages. */
const ttl = 900

async function check (writer: Node, reader: Node, until: Stage['until'], topic: string, given: Recovery): Promise<void> {
  const { name, size, fits, latest = false, published, expired = false, then = 0, ended = false, since, foreign = false, recovers } = given
  const bytes = fits === undefined ? roomy.bytes : fits * writer.publication(topic, 'm').tail.length
  const retention: Retention = { size: size ?? roomy.size, bytes, ttl: expired ? ttl : roomy.ttl, latest }
  const publish = async (count: number): Promise<void> => {
    if (count > 0) await writer.broker.publish(Array.from({ length: count }, (_, n) => writer.publication(topic, 'm', { retention, ...(latest ? { key: n % 2 === 0 ? 'a' : 'b' } : {}) })))
  }
  const read = async (after?: number) => reader.history(topic, { retention, ...(after === undefined ? {} : { after }) })
  await publish(published)
  if (ended) await writer.publish(topic, null, { tail: Buffer.from('"reason":"done"}'), payloadLength: 0, end: 'done', retention })
  if (expired) await until('the messages expire', async () => (await read()).messages.length === 0)
  await publish(then)
  const { position: { epoch } } = await read()
  const known = foreign ? `other${epoch.slice(5)}` : epoch
  const page = await read(since)
  const isRecovered = page.position.epoch === known && page.from <= since && since <= page.position.offset
  assert.equal(isRecovered, recovers !== false, name)
  if (recovers !== false) assert.deepEqual(page.messages.map(({ offset }) => offset), Array.from({ length: recovers }, (_, n) => since + 1 + n), name)
}

/** Cases of clients that come back, read on another node than the one that published. */
export const recoveryCases: readonly Case[] = [false, true].map(isOfExpiry => ({
  name: isOfExpiry ? 'a client that comes back after its messages have expired gets all or is told' : 'a client that comes back gets every message behind its position, or is told',
  needs: ['history'],
  async run ({ nodes, until }) {
    const [writer, reader = writer] = await nodes(2) as [Node, Node?]
    const chosen = recoveries.filter(({ expired = false }) => expired === isOfExpiry)
    await Promise.all(chosen.map(async (recovery, index) => check(writer, reader, until, `t${index}`, recovery)))
  }
}))
