import type { Ref } from '../../types/protocol.ts'

/** A frame of the server before its type is known. */
export interface Frame {
  readonly type: string
  readonly topic?: string
  readonly ref?: Ref
  readonly id?: string
  readonly [member: string]: any
}
