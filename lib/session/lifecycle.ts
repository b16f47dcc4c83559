import type { LeaveReason, SessionState } from '../../types/index.ts'
import type { Aftermath } from '../hub/aftermath.ts'
import type { Counters } from '../hub/counters.ts'
import * as events from '../hub/events.ts'
import { sayBye, type ByeHub } from './bye.ts'
import type { Ending } from './ending.ts'
import type { Membership } from './membership.ts'

/** The state of a session. Only this module writes it. */
export interface LifecycleState {
  state: SessionState
  ending: LeaveReason
  isAccepted: boolean
  isEndedByServer: boolean
  /** Completes the join; `undefined` before `onJoin` is called, and once it has accepted. */
  onAccept: (() => void) | undefined
}

/** The parts of the hub that a session's lifecycle changes. */
export interface LifecyclePorts {
  readonly counters: Pick<Counters, 'refused' | 'refusals'>
  readonly aftermath: Aftermath
  readonly bye: ByeHub
  /** Takes a session that has ended out of its room and out of all lists. */
  remove (session: Membership, wasOpen: boolean): void
  /** Calls the host's `onLeave`. */
  callOnLeave (session: Membership): void
}

type Session = Membership & LifecycleState

/** The states of a session: joining, then open, then closed. */
export class Lifecycle {
  readonly #ports: LifecyclePorts

  constructor (ports: LifecyclePorts) {
    this.#ports = ports
  }

  /** Waits for `onJoin`, or for a reader of the session's messages, to accept it. Then `commit` is called, once. */
  awaitAcceptance (session: Session, commit: () => void): void {
    session.onAccept = commit
  }

  /** Calls back no longer. */
  endAcceptance (session: Session): void {
    session.onAccept = undefined
  }

  /** Accepts a session. If it has ended meanwhile, `onLeave` is called at once. */
  accept (session: Session): void {
    const { onAccept } = session
    if (onAccept === undefined) return
    session.onAccept = undefined
    session.isAccepted = true
    if (session.state === 'joining') onAccept()
    else this.#ports.callOnLeave(session)
  }

  /** Makes a joining session a member. */
  open (session: Session): void {
    session.state = 'open'
  }

  /** Ends a membership, once, and its connection if the connection's URL named the topic. */
  end (session: Session, ending: Ending): void {
    if (session.state === 'closed') return
    const { counters, aftermath, bye, remove, callOnLeave } = this.#ports
    const { code, reason, by } = ending
    const wasOpen = session.state === 'open'
    if (by === 'server') {
      session.isEndedByServer = true
      sayBye(bye, session, ending)
      session.flush()
    }
    session.state = 'closed'
    session.ending = { code, reason }
    remove(session, wasOpen)
    const refusal = wasOpen || by === 'peer' ? undefined : ending.refusal ?? 'other'
    if (refusal !== undefined) {
      counters.refused++
      counters.refusals[refusal]++
    }
    session.requests?.reject()
    if (by === 'server') {
      session.connection.sessionEnded(session, ending)
      session.queue?.clear()
    }
    // From here on the host's code runs, which may end further sessions.
    aftermath.run(() => {
      if (wasOpen) events.memberLeft(session, code, reason, by)
      else if (refusal !== undefined) events.refused(session, 'join', refusal)
      session.abort()
      const finish = (): void => {
        session.iterator?.end()
        if (session.isAccepted) callOnLeave(session)
      }
      // Frames that a peer had sent before it went are still handled, and onLeave comes after them.
      if (by === 'peer' && wasOpen && session.queue !== undefined) session.queue.whenIdle(finish)
      else finish()
    })
  }
}
