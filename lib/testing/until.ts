import { inspect } from 'node:util'
import type { ClientRoom, RoomState } from '../../types/client.ts'
import type { UntilOptions } from '../../types/testing.ts'

/** Milliseconds that a condition has to become true. */
const defaultTimeout = 5_000

/**
 * Waits until the state of a room is as a test expects it. Resolves with that state.
 *
 * ```ts
 * await until(room, ({ status }) => status === 'open')
 * const { last } = await until(room, ({ last }) => last?.data.text === 'hi')
 * ```
 *
 * @throws the error of the room if it closes; Error with its last state after `timeout`; what `holds` throws
 */
export function until<P, S, I> (room: ClientRoom<any, P, S, I>, holds: (state: RoomState<P, I>) => boolean, { timeout = defaultTimeout }: UntilOptions = {}): Promise<RoomState<P, I>> {
  return new Promise((resolve, reject) => {
    const check = (): void => {
      const state = room.getSnapshot()
      try {
        if (holds(state)) {
          stop()
          resolve(state)
        } else if (state.status === 'closed') throw state.error ?? new Error(`the room "${room.topic}" has closed: ${inspect(state)}`)
      } catch (error) {
        stop()
        reject(error)
      }
    }
    const stop = (): void => {
      clearTimeout(timer)
      unsubscribe()
    }
    const timer = setTimeout(() => {
      stop()
      reject(new Error(`it does not hold within ${timeout} ms: ${holds}; the room "${room.topic}" is ${inspect(room.getSnapshot())}`))
    }, timeout)
    const unsubscribe = room.subscribe(check)
    check()
  })
}
