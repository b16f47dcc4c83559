import type { Skip } from '../../types/index.ts'

/** Whether a position at this offset is that of a publication which the broker has lost: no other publication has it. */
export function isSkipped (skips: readonly Skip[], offset: number): boolean {
  return skips.some(({ after, to }) => after < offset && offset < to)
}
