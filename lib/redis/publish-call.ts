import type { Outcome, Position, Publication, Retention } from '../../types/index.ts'
import type { RedisArgument } from '../../types/redis.ts'
import type { Keys } from './keys.ts'
import { bounded, metaTtl, sizeOf } from './reader.ts'

/** Bytes that a value counts besides its tail and its key. The same as in the memory broker. */
const valueOverhead = 320

/** A call of the publish script, besides its publications. */
export interface CallHead {
  readonly keys: Keys
  readonly topic: string
  readonly isCluster: boolean
  readonly node: string
  readonly seq: number
  /** The epoch to begin if there is none. */
  readonly epoch: string
  /** The position that this node knows. */
  readonly position: Position | undefined
  /** The run of the server; empty if it is not known. */
  readonly run: string
  /** Whether to renew the time to live of what the server knows of the topic. */
  readonly isRenewing: boolean
}

/** The keys and arguments of the publish script, for publications of one topic. */
export function argumentsOf ({ keys, topic, isCluster, node, seq, epoch, position, run, isRenewing }: CallHead, pending: readonly { readonly publication: Publication, readonly bytes: Buffer }[]): { keys: string[], args: RedisArgument[] } {
  const names: string[] = keys.topic(topic)
  const args: RedisArgument[] = [
    keys.channel(topic), isCluster ? 'SPUBLISH' : 'PUBLISH', epoch, position?.epoch ?? '', String(position?.offset ?? 0), node, String(seq),
    ...settingsOf(pending.at(-1)!.publication.retention), String(pending.length), run, isRenewing ? '1' : ''
  ]
  for (const { publication: { mid, key, version, end, tail }, bytes } of pending) {
    if (mid !== undefined) names.push(keys.mid(topic, mid))
    // A message without a key is a value, too; no key begins with a blank.
    args.push(bytes, key === undefined ? '' : `k${key}`, version === undefined ? '' : String(version), end ?? '', mid === undefined ? '' : '1', String(valueOverhead + tail.length + 2 * (key?.length ?? 0)))
  }
  return { keys: names, args }
}

/** The arguments of the publish script that say what a topic keeps. */
function settingsOf (retention: Retention | undefined): string[] {
  if (retention === undefined) return ['n', '0', '0', '0', '0']
  const { bytes, ttl, latest } = retention
  return [latest ? 'v' : 'l', sizeOf(retention), bounded(bytes), String(Math.ceil(ttl)), metaTtl(retention)]
}

/** The outcome of one message, from its word in the answer of the publish script. */
export function outcomeOf (epoch: string, word = ''): Outcome {
  const rest = word.slice(1)
  switch (word[0]) {
    case 'o': return { state: 'ok', ...(rest === '' ? {} : { position: { epoch, offset: Number(rest) } }) }
    case 'd': {
      const dash = rest.lastIndexOf('-')
      return { state: 'duplicate', ...(dash === -1 ? {} : { position: { epoch: rest.slice(0, dash), offset: Number(rest.slice(dash + 1)) } }) }
    }
    case 's': return { state: 'stale' }
    case 'e': return { state: 'ended' }
    default: return { state: 'unknown' }
  }
}
