import { FST_ROOMS_INFO_TOO_LARGE, FST_ROOMS_INVALID_PAYLOAD } from '../errors.ts'

/** A timer serialises presence frames, and could report a stack overflow to no caller. So the nesting of an info is bounded here. */
const maxDepth = 1_000

/** @throws FST_ROOMS_INVALID_PAYLOAD */
function frozen (value: unknown, depth = 0): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (depth === maxDepth) throw new FST_ROOMS_INVALID_PAYLOAD(`it is nested more than ${maxDepth} deep`)
  for (const inner of Object.values(value)) frozen(inner, depth + 1)
  return Object.freeze(value)
}

/**
 * Reads presence info from its JSON: a frozen copy, so that the info that was checked cannot change.
 * @param limit - bytes of the JSON
 * @throws FST_ROOMS_INFO_TOO_LARGE, FST_ROOMS_INVALID_PAYLOAD
 */
export function readInfo (json: string, limit: number): unknown {
  const bytes = Buffer.byteLength(json)
  if (bytes > limit) throw new FST_ROOMS_INFO_TOO_LARGE(bytes, limit)
  return frozen(JSON.parse(json))
}
