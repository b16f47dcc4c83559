import { setImmediate as nextTurn } from 'node:timers/promises'
import type { PipeOptions } from '../../types/index.ts'
import type { Source } from './source.ts'

/** Parts that are read in one turn of the event loop. A source that never waits would otherwise stop everything else. */
const perTurn = 256

/** The producer that a source is written to. */
export interface PipedRun {
  /** Writes a message. @throws what ends the pipe */
  write (payload: unknown): Promise<void>
  /** Settles when the stream has ended, in whatever way. */
  readonly over: Promise<unknown>
}

/**
 * Writes all parts of a source to a stream. Settles when the source has ended and everything is written, or when the stream has ended: then the source is cancelled, and
 * is not waited for.
 * @throws the error of the source, of `merge` or of a write; the source has then been cancelled
 */
export async function pipe (source: Source, run: PipedRun, { merge }: PipeOptions<any>): Promise<void> {
  let isOver = false
  let isDone = false
  const over = run.over.then(() => { isOver = true })
  const copy = async (): Promise<void> => {
    const write = merge === undefined ? (payload: unknown) => run.write(payload) : merged(run, merge)
    for (let parts = 1; ; parts++) {
      const { done, value } = await source.next()
      if (isOver) return
      if (done === true) break
      await write(value)
      if (parts % perTurn === 0) await nextTurn()
    }
    isDone = true
    if (merge !== undefined) await write(nothing)
  }
  try {
    await Promise.race([copy(), over])
  } finally {
    if (!isDone) source.cancel()
  }
}

/** Not a part: writes what has been merged. */
const nothing = Symbol('nothing')

/** Returns a function that takes the parts of a source, joins those that come before the last message is written, and writes them. */
function merged (run: PipedRun, merge: (a: any, b: any) => unknown): (part: unknown) => Promise<void> | void {
  let joined: unknown = nothing
  let writing: Promise<void> | undefined
  let failure: { error: unknown } | undefined
  const flush = async (): Promise<void> => {
    try {
      while (joined !== nothing) {
        await nextTurn()
        const payload = joined
        joined = nothing
        await run.write(payload)
      }
    } catch (error) {
      failure = { error }
    } finally {
      writing = undefined
    }
  }
  return part => {
    if (failure !== undefined) throw failure.error
    if (part === nothing) return writing?.then(() => { if (failure !== undefined) throw failure.error })
    joined = joined === nothing ? part : merge(joined, part)
    writing ??= flush()
  }
}
