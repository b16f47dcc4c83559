import type { Frame } from './frame.ts'
import type { Room } from './core.ts'

/** Whether a position is at another one of the same epoch, or before it. `""` stands for no position. */
export const isUpTo = (id: string, other: string): boolean => {
  const [epoch, offset] = id.split('-')
  const [otherEpoch, otherOffset] = other.split('-')
  return epoch === otherEpoch && Number(offset) <= Number(otherOffset)
}

/** Returns a filter that takes the messages up to a position, which the room knows, and ends with the first message behind it. */
export const behind = (room: Room, floor: string) => ({ type, id }: Frame): boolean => {
  if (type === 'direct' || type === 'presence') return false
  if (type !== 'gap' && id !== undefined && isUpTo(id, floor)) return true
  room.filter = undefined
  return false
}
