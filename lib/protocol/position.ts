import type { Position } from '../../types/protocol.ts'

const epochPattern = '[A-Za-z0-9]{11,64}'
const maxOffsetDigits = 15
const epochRegExp = new RegExp(`^${epochPattern}$`)

/** The values of `?since=`: an id, `0` for all kept history, `latest` for the newest kept value. */
export const sincePattern = `^(?:0|latest|${epochPattern}-[0-9]{1,${maxOffsetDigits}})$`

const sinceRegExp = new RegExp(sincePattern)

/** Whether a value is valid in `?since=`. */
export function isSince (value: unknown): value is string {
  return typeof value === 'string' && sinceRegExp.test(value)
}

/** Whether a value is a position whose id is valid in `?since=`. */
function isPosition (value: unknown): value is Position {
  if (typeof value !== 'object' || value === null) return false
  const { epoch, offset } = value as Partial<Position>
  return typeof epoch === 'string' && epochRegExp.test(epoch) && Number.isInteger(offset) && offset! >= 0 && offset! < 10 ** maxOffsetDigits
}

/** Returns a copy of a broker's position, because the broker may change its object. `undefined`: there is none; `null`: it is not a position. */
export function readPosition (given: unknown): Position | undefined | null {
  if (given == null) return undefined
  return isPosition(given) ? { epoch: given.epoch, offset: given.offset } : null
}

/** Returns the id of a position, `"<epoch>-<offset>"`. It is opaque to clients. */
export function formatPosition (position: Position): string {
  return `${position.epoch}-${position.offset}`
}

/** Returns the position of an id; `null` for any other text, `0` and `latest` included, which are not positions. */
export function parsePosition (id: string): Position | null {
  const dash = id.lastIndexOf('-')
  if (dash === -1 || !sinceRegExp.test(id)) return null
  return { epoch: id.slice(0, dash), offset: Number(id.slice(dash + 1)) }
}
