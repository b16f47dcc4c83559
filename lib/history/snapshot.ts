import { formatPosition } from '../protocol/position.ts'
import { endText } from './end.ts'
import type { Page } from './read.ts'

/**
 * Returns the answer to a request that reads a topic without joining it, as JSON. The messages are copied as they are kept, not parsed.
 * @param count - members of the topic, on all nodes if that is known
 */
export function snapshotText (topic: string, count: number, { position, messages, recovered, complete, ended }: Page): string {
  let text = `{"topic":${JSON.stringify(topic)}`
  if (position !== undefined) text += `,"id":"${formatPosition(position)}"`
  text += `,"count":${count},"messages":[`
  // A tail is the end of a frame, from the payload on.
  text += messages.map(({ offset, tail }) => `{"id":"${formatPosition({ epoch: position!.epoch, offset })}",${tail.toString()}`).join(',')
  text += ']'
  if (recovered !== undefined) text += `,"recovered":${recovered}`
  text += `,"complete":${complete}`
  return ended === undefined ? `${text}}` : `${text},"ended":${endText(position!, ended)}}`
}
