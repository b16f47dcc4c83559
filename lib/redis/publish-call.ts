import type { Outcome, Retention } from '../../types/index.ts'
import { bounded, metaTtl } from './reader.ts'

/** The arguments of the publish script that say what a topic keeps. */
export function settingsOf (retention: Retention | undefined): string[] {
  if (retention === undefined) return ['n', '0', '0', '0', '0']
  const { size, bytes, ttl, latest } = retention
  return [latest ? 'v' : 'l', Number.isFinite(size) ? String(size) : '-1', bounded(bytes), String(Math.ceil(ttl)), metaTtl(retention)]
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
