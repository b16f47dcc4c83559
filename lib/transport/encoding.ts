import type { Mode } from '../../types/index.ts'

/** All ways in which a message can stand in a frame. Whoever has negotiated compression for messages gets its own, but may be sent plain ones, too. */
export const encodings = [
  { mode: 'rooms.v1', deflated: false },
  { mode: 'rooms.raw', deflated: false },
  { mode: 'rooms.v1', deflated: true },
  { mode: 'rooms.raw', deflated: true }
] as const satisfies readonly { mode: Mode, deflated: boolean }[]

/** An index of `encodings`. */
export type Encoding = 0 | 1 | 2 | 3

export function encodingOf (mode: Mode, deflated: boolean): Encoding {
  return encodings.findIndex(encoding => encoding.mode === mode && encoding.deflated === deflated) as Encoding
}
