import type { Frame } from './frame.ts'
import type { Room } from './core.ts'

/** Whether a position is at another one of the same epoch, or before it. `""` stands for no position. */
export const isUpTo = (id: string, other: string): boolean => {
  const [epoch, offset] = id.split('-')
  const [otherEpoch, otherOffset] = other.split('-')
  return epoch === otherEpoch && Number(offset) <= Number(otherOffset)
}

/**
 * Returns a filter that takes the messages up to a position, which the room knows, and ends with the first message behind it. It takes those of another epoch, too: the
 * server tells a gap before it goes on to a newer epoch, so a message without one is of an older epoch than a snapshot that was read for the same membership.
 */
export const behind = (room: Room, floor: string) => {
  const { session } = room.now
  const [epoch] = floor.split('-')
  return ({ type, id }: Frame): boolean => {
    if (type === 'direct' || type === 'presence') return false
    if (type !== 'gap' && id !== undefined && (isUpTo(id, floor) || (type === 'message' && epoch && session === room.now.session && !id.startsWith(`${epoch}-`)))) return true
    room.filter = undefined
    return false
  }
}
