import type { EndReason, KeptMessage, Position } from '../../types/index.ts'
import { formatPosition } from '../protocol/position.ts'
import { endTail } from '../protocol/server-frames.ts'

/** The key of the end of a stream, which is not the newest message of any key. */
export const endKey: unique symbol = Symbol('end')

/** Names the value that a kept message replaces. */
export type KeptKey = string | typeof endKey | undefined

/** Whether a kept message is the end of a stream. */
export function isEnd ({ payloadLength }: Pick<KeptMessage, 'payloadLength'>): boolean {
  return payloadLength === 0
}

export function keyOf (message: Pick<KeptMessage, 'payloadLength' | 'key'>): KeptKey {
  return isEnd(message) ? endKey : message.key
}

/** The end of a stream, from its reason on, as JSON, and the messages before it. If it is no longer kept, its reason alone is known. */
export function splitEnd (messages: readonly KeptMessage[], reason: EndReason): { messages: readonly KeptMessage[], ended: string } {
  const last = messages.at(-1)
  return last !== undefined && isEnd(last) ? { messages: messages.slice(0, -1), ended: last.tail.toString() } : { messages, ended: endTail(reason) }
}

/** The end of a stream as a page has it, as JSON. */
export function endText (position: Position, ended: string): string {
  return `{"id":"${formatPosition(position)}",${ended}`
}
