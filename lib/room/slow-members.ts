import type { SlowPolicy } from '../../types/index.ts'
import { asError } from '../error-utils.ts'
import { FST_ROOMS_INVALID_POLICY } from '../errors.ts'
import type { Counters } from '../hub/counters.ts'
import { fellBehind, type Subject } from '../hub/events.ts'
import type { SlowConsumers } from '../hub/ports.ts'
import { serverEnding, slowCode } from '../session/ending.ts'
import type { SlowRule, TopicDefinition } from '../topics/registry.ts'
import type { Look, Transport } from '../transport/transport.ts'
import type { Lag } from './lag.ts'
import type { RoomMember } from './member.ts'

/** Bytes that a frame which is buffered by itself costs besides its own: some 400 were measured, of Node.js and of V8. */
const frameOverhead = 512

const policies: readonly unknown[] = ['close', 'latest', 'drop'] satisfies SlowPolicy[]

/** A member whose reading is watched. */
export interface WatchedMember extends RoomMember, Subject {
  readonly definition: Pick<TopicDefinition, 'slow'>
  /** Tells the host of an error of a hook about this session. */
  fail (error: Error): void
}

/** A room with slow members. */
interface SlowRoom<M> {
  readonly definition: { readonly slow: SlowRule }
  /** The topic has ended: no message follows. */
  readonly isEnded: boolean
  decide (lag: Lag, policy: SlowPolicy): void
  caughtUp (member: M, turn: number): void
  /** Sends a held member what has waited for it. Returns `false` if that is too much: then the member is slow. */
  release (member: M, turn: number): boolean
}

/** A room with members that are sent kept messages. */
interface ReplayingRoom<M> {
  readonly isEnded: boolean
  sendKept (member: M, turn: number): 'more' | 'done' | 'lost'
}

/** The last look at a peer that is sent kept messages, and since when it has taken none of them. */
interface Watch extends Look { since: number }

/**
 * Watches over slow members: those for which more than `slow.bytes` would be buffered, some of it from an earlier turn. A member with an empty buffer takes
 * whatever one turn brings, however much.
 */
export class SlowMembers<M extends WatchedMember> implements SlowConsumers<M> {
  readonly #counters: Pick<Counters, 'slow'>
  readonly #turn: { readonly now: number, mark (): void }
  readonly #patience: number
  /** Members that have not taken all kept messages that were written for them. */
  readonly #watched = new Map<M, Watch>()

  /** @param patience - milliseconds for which a peer may take none of the kept messages that it is sent */
  constructor (counters: Pick<Counters, 'slow'>, turn: { readonly now: number, mark (): void }, patience: number) {
    this.#counters = counters
    this.#turn = turn
    this.#patience = patience
  }

  /** Applies the policy to members that a fan-out has left behind. Runs after the fan-out, because the end of a membership runs the host's code. */
  applyPolicy (room: SlowRoom<M>, behind: readonly M[]): void {
    for (const member of behind) {
      const { transport, lag } = member
      if (lag === undefined) continue // a hook about another member has ended it
      const owed = lag.owed.reduce((bytes, frame) => bytes + frame.length, 0)
      const isOver = lag.isLost || (owed > 0 && transport.bufferedBytes + owed > room.definition.slow.bytes)
      const policy = isOver ? 'close' : this.#policy(member, lag)
      if (member.lag !== lag) continue // the host has ended it
      if (policy === 'close') this.#close(member)
      else {
        room.decide(lag, policy)
        // While onJoined runs, the member is behind the room, however fast it reads.
        const catchesUp = lag.hold === undefined
        if (catchesUp) transport.writeAll(lag.owed.splice(0))
        // The event's subscriber may end the session.
        fellBehind(member, policy)
        if (catchesUp) this.#guard(member, this.#awaitDrain(room, member))
      }
    }
  }

  /**
   * Sends a member the kept messages that it was promised, as fast as its peer reads. A peer that reads slowly does not make it slow (but see `sweep`).
   * @param done - called when the member has all of them
   */
  sendKept (room: ReplayingRoom<M>, member: M, done: (() => void) | undefined): void {
    const step = room.sendKept(member, this.#turn.now)
    this.sent(member)
    if (step === 'lost') member.end(serverEnding(4202, 'position'))
    if (step !== 'more') this.#watched.delete(member)
    if (step === 'done') done === undefined ? this.#finish(room, member) : done()
    if (step !== 'more') return
    const { lag } = member
    this.#watched.set(member, { written: 0, unsent: 0, since: performance.now() })
    this.#guard(member, member.transport.drained().then(() => {
      if (member.lag === lag) this.sendKept(room, member, done)
    }, () => {}))
  }

  /**
   * Ends members whose peers take none of the kept messages that they are sent, because these messages stay in memory for them. Their pongs do not count. Call it
   * from time to time.
   * @param stalled - milliseconds for which this process has stood still
   */
  sweep (now: number, stalled: number): void {
    for (const [member, watch] of this.#watched) {
      if (member.lag?.policy !== 'replay') this.#watched.delete(member) // it has left
      else if (member.transport.hasTaken(watch)) watch.since = now
      else {
        watch.since += stalled
        if (now - watch.since >= this.#patience) this.#close(member)
      }
    }
  }

  /** Sends a member that was held while `onJoined` ran what has waited for it, and takes it into the fan-out of its room. Does nothing if it has ended. */
  release (room: SlowRoom<M>, member: M): void {
    const { transport, lag } = member
    if (lag?.hold === undefined) return
    if (room.release(member, this.#turn.now)) {
      this.sent(member)
      this.#finish(room, member)
    } else if (lag.policy !== undefined) {
      transport.writeAll(lag.owed.splice(0))
      this.#guard(member, this.#awaitDrain(room, member))
    }
  }

  /** Ends a member whose frames cannot be made or written, because without them it cannot catch up. */
  #guard (member: M, work: Promise<void>): void {
    work.catch((error: unknown) => {
      member.fail(asError(error))
      member.end(serverEnding(1011))
    })
  }

  async #awaitDrain (room: SlowRoom<M>, member: M): Promise<void> {
    try {
      await member.transport.drained()
    } catch {
      return // the connection has closed
    }
    room.caughtUp(member, this.#turn.now)
    this.sent(member)
    this.#finish(room, member)
  }

  /** Ends a member that has everything of a topic that has ended. */
  #finish (room: { readonly isEnded: boolean }, member: M): void {
    if (room.isEnded) member.end(serverEnding(1000))
  }

  admits (member: M, bytes: number): boolean {
    const { transport } = member
    if (transport.isClosing) return false
    if (this.#hasSpace(transport, bytes, member.definition.slow.bytes)) return true
    this.#close(member)
    return false
  }

  /**
   * Writes a frame that belongs to no member, if its peer reads fast enough.
   * @param bound - most bytes that may be buffered
   */
  write (transport: Transport, frame: Buffer, bound: number): boolean {
    if (transport.isClosing) return true
    if (!this.#hasSpace(transport, frame.length, bound)) {
      transport.isClosing = true
      this.#counters.slow++
      return false
    }
    transport.writeFrame(frame)
    if (transport.bufferedBytes > 0) this.#turn.mark()
    return true
  }

  #hasSpace (transport: Transport, bytes: number, bound: number): boolean {
    const buffered = transport.bufferedBytes
    if (buffered === 0) transport.emptyTurn = this.#turn.now
    else if (transport.emptyTurn !== this.#turn.now) return buffered + bytes + transport.bufferedFrames * frameOverhead <= bound
    return true
  }

  /** Ends the current turn soon, so that bytes still buffered then count as left over from an earlier turn. */
  sent (member: M): void {
    const { transport, lag } = member
    if (lag?.hold !== undefined && lag.hold.frameBytes > member.definition.slow.bytes) this.#close(member)
    else if (transport.bufferedBytes > 0) this.#turn.mark()
  }

  #policy (member: M, { waited }: Lag): SlowPolicy {
    const { policy } = member.definition.slow
    if (typeof policy !== 'function') return policy
    try {
      const answer = policy(member as never, { bytes: member.transport.bufferedBytes + waited })
      if (policies.includes(answer)) return answer as SlowPolicy
      // The function has to decide at once. If it is asynchronous, its promise is not awaited, but its failure is told.
      Promise.resolve(answer).catch((error: unknown) => { member.fail(asError(error)) })
      throw new FST_ROOMS_INVALID_POLICY(typeof answer === 'string' ? JSON.stringify(answer.slice(0, 64)) : typeof answer)
    } catch (error) {
      member.fail(asError(error))
      return 'close'
    }
  }

  #close (member: M): void {
    member.transport.isClosing = true
    fellBehind(member, 'close')
    this.#counters.slow++
    member.end(serverEnding(slowCode))
  }
}
