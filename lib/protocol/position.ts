import type { Position } from '../../types/index.ts'

/** What `?since=` takes: an id, `0` for all kept history, `latest` for the newest kept value. */
export const sincePattern = '^(?:0|latest|[A-Za-z0-9]{11,64}-[0-9]{1,15})$'

/** The opaque id `"<epoch>-<offset>"`. */
export function formatPosition (position: Position): string {
  return `${position.epoch}-${position.offset}`
}

/** Reads an id that matched `sincePattern`; `null` for `0` and `latest`, which name no position. */
export function parsePosition (id: string): Position | null {
  const dash = id.lastIndexOf('-')
  if (dash === -1) return null
  return { epoch: id.slice(0, dash), offset: Number(id.slice(dash + 1)) }
}
