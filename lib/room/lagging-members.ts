import type { SlowPolicy } from '../../types/index.ts'
import type { Counters } from '../hub/counters.ts'
import type { Delivery } from './delivery.ts'
import type { Lag } from './lag.ts'
import { LatestValues, type LatestValue } from './latest-values.ts'
import type { RoomMember } from './member.ts'

/** The members of one room that are not in the fan-out: those that have fallen behind, with the latest values that some of them will be sent, and those that are being sent kept messages. */
export class LaggingMembers<M extends RoomMember> {
  readonly members = new Set<M>()
  readonly #counters: Pick<Counters, 'dropped' | 'conflated'>
  /** The topic's policy is `latest`, or a function that may return it. */
  readonly mayConflate: boolean
  /** The messages of this turn, for members that fall behind in it. */
  #recent: LatestValue[] = []
  #latest: LatestValues | undefined
  /** Members that will, or may, be sent the latest values. */
  #conflating = 0

  constructor (mayConflate: boolean, counters: Pick<Counters, 'dropped' | 'conflated'>) {
    this.mayConflate = mayConflate
    this.#counters = counters
  }

  /** Bytes of the latest values that are kept; 0 if no member may be sent them. */
  get latestBytes (): number { return this.#latest?.bytes ?? 0 }

  /**
   * Notes a message that members may be sent later. Call it only if `mayConflate`.
   * @param isSent - the message is in this turn's batch, from which members may fall behind
   */
  note (value: LatestValue, isSent: boolean): void {
    if (isSent) this.#recent.push(value)
    this.#latest?.put(value)
  }

  /** Members that are being sent kept messages. */
  replaying = 0

  /** Members that have fallen behind. */
  get slow (): number { return this.members.size - this.replaying }

  /** Adds a member that is being sent kept messages. */
  addReplaying (member: M, lag: Lag): void {
    member.lag = lag
    this.members.add(member)
    this.replaying++
  }

  /** Begins a new turn. Returns the messages of the last one. */
  takeRecent (): LatestValue[] {
    const recent = this.#recent
    if (recent.length > 0) this.#recent = []
    return recent
  }

  /**
   * Adds a member that has fallen behind.
   * @param recent - the messages of the turn in which it did
   */
  add (member: M, lag: Lag, recent: readonly LatestValue[]): void {
    member.lag = lag
    this.members.add(member)
    if (!this.mayConflate) return
    this.#conflating++
    if (this.#latest !== undefined) return
    this.#latest = new LatestValues()
    for (const value of recent) this.#latest.put(value)
  }

  /**
   * Adds a member that waited for `onJoined` when too much was queued for it.
   * @param messages - those that were queued; some may be older than the values that are kept
   */
  addHeld (member: M, lag: Lag, messages: readonly LatestValue[]): void {
    const kept = this.#latest?.all() ?? []
    this.#latest = undefined
    // Members that fall behind in this turn rely on its messages being among the values.
    this.add(member, lag, [...kept, ...this.#recent, ...messages].sort((a, b) => a.message - b.message))
  }

  /** Sets the policy of a member that stays. */
  decide (lag: Lag, policy: SlowPolicy): void {
    lag.policy = policy
    if (this.mayConflate && policy !== 'latest') this.#endConflating()
  }

  /** The latest values for a member that has caught up. */
  latestFor (member: M, { message }: Lag): Generator<Delivery> {
    return this.#latest!.after(message, member.id)
  }

  /** Yields every member that waits for the latest values, to be closed with 4201, because these exceed `slow.bytes`. */
  * exceed (): Generator<M> {
    for (const member of this.members) {
      const lag = member.lag!
      if (lag.policy !== 'latest') continue
      lag.isLost = true
      yield member
    }
  }

  /**
   * Removes a member that has caught up or left.
   * @param missed - messages that it was not sent
   */
  remove (member: M, lag: Lag, missed: number): void {
    if (lag.policy === 'latest') this.#counters.conflated += missed
    else if (lag.policy === 'drop') this.#counters.dropped += missed
    member.lag = undefined
    this.members.delete(member)
    if (lag.policy === 'replay') this.replaying--
    if (this.mayConflate && (lag.policy === undefined || lag.policy === 'latest')) this.#endConflating()
  }

  #endConflating (): void {
    if (--this.#conflating === 0) this.#latest = undefined
  }
}
