import type { MemberSession } from '../../lib/session/session.ts'
import type { Member, Mode, ServerFrame, Session } from '../../types/index.ts'
import type { Wire } from './wire.ts'

export const topicNames = ['chat', 'work'] as const
export type Topic = typeof topicNames[number]

/** A client and the frames that it received. */
export interface Peer {
  readonly mode: Mode
  readonly topic: Topic
  readonly since: string | undefined
  /** It joins with an event stream, so it sends nothing. */
  readonly isStream: boolean
  /** Its own end is open as well. */
  ready: boolean
  /** Messages that it sent and that the server must have handled before the end of the run. */
  published: number
  /** The client disconnected by itself, so messages in flight may be lost. */
  gone: boolean
  presence: boolean
  readonly received: string[]
  closed: { code: number, reason: string } | undefined
  /** Its connection, if that has several topics. Fields of such a peer follow. */
  readonly wire: Wire | undefined
  readonly joinRef: string | undefined
  /** The `ref` with which it left its topic. */
  leaveRef: string | undefined
  /** The answer to its join, if that was refused. */
  refused: string | undefined
  /** The value that `refused` has to have; `undefined` if the server has not decided it by a hook. */
  refusal: string | undefined
  /** The `ref` of each frame that was sent before hello. */
  readonly held: string[]
  /** The `ref` of each frame that was refused because the topic was not joined. */
  readonly unjoined: string[]
  /** The `ref` of each malformed frame that onInvalid was not asked about yet. */
  readonly malformed: string[]
  send (frame: unknown): void
  leave (): void
}

/** A member as the server knows it, and the frames that its client must get. */
export interface Entry {
  readonly session: Session
  readonly peer: number
  readonly mode: Mode
  readonly topic: Topic
  state: 'joining' | 'open' | 'closed'
  /** The position that it resumes from. */
  readonly since: string | undefined
  /** Messages that were sent to it before hello. */
  readonly early: unknown[]
  readonly expected: string[]
  /** Frames that wait until `onJoined` has settled. `isOwn`: no other member gets the frame. */
  waiting: { text: string, isOwn: boolean }[]
  /** Its peer left while frames waited: it is not known which of these were sent. */
  isCut: boolean
  /** Its peer left one of several topics: it is still answered what it had sent. */
  isLeft: boolean
  /** Its messages that the server has handled. */
  seen: number
  /** The close that the server sends to it. */
  close: { code: number, reason: string } | undefined
}

/** The predictable part of a frame; `undefined` for presence. */
export function essence (mode: Mode, text: string): string | undefined {
  if (mode === 'rooms.raw') return text
  const frame = JSON.parse(text) as ServerFrame
  switch (frame.type) {
    case 'presence': return undefined
    case 'hello': return `hello ${frame.id} ${frame.session}`
    case 'message': return `message ${frame.id} ${frame.from} ${JSON.stringify(frame.data)}`
    case 'direct': return `direct ${frame.from} ${JSON.stringify(frame.data)}`
    case 'ack': return frame.ok ? `ack ${frame.ref} ${frame.id} ${JSON.stringify(frame.data)}` : `ack ${frame.ref} ${frame.error.code}`
    case 'error': return `error ${frame.error.code}`
    case 'bye': return `bye ${frame.code} ${frame.reason} ${frame.id}`
    default: return text
  }
}

/** A message of a topic. */
interface Published { id: string, from: string | undefined, json: string }

/** Predicts the frames of each connection from the events on the server, in their order. */
export class Model {
  readonly entries = new Map<string, Entry>()
  readonly published = new Map<Topic, Published[]>(topicNames.map(topic => [topic, []]))
  readonly epochs = new Map<Topic, string>()
  readonly offsets = new Map<Topic, number>()

  position (topic: Topic): string { return `${this.epochs.get(topic)}-${this.offsets.get(topic)}` }
  members (topic: Topic): Entry[] { return [...this.entries.values()].filter(entry => entry.topic === topic && entry.state === 'open') }
  get open (): Entry[] { return topicNames.flatMap(topic => this.members(topic)) }

  /** A message to a topic. Returns its position and its number of receivers. */
  message (topic: Topic, data: unknown, from?: string, except?: string): { id: string, local: number } {
    this.offsets.set(topic, this.offsets.get(topic)! + 1)
    const id = this.position(topic)
    const json = JSON.stringify(data)
    this.published.get(topic)!.push({ id, from, json })
    const told = this.members(topic).filter(({ session }) => session.id !== except)
    for (const entry of told) this.#send(entry, entry.mode === 'rooms.raw' ? json : `message ${id} ${from} ${json}`)
    return { id, local: told.length }
  }

  /** @param isFirst - the host sends it by `session.send`, so it does not wait for `onJoined` */
  direct (entry: Entry, data: unknown, from?: string, isFirst = false): void {
    const text = `${entry.mode === 'rooms.raw' ? '' : `direct ${from} `}${JSON.stringify(data)}`
    if (entry.state === 'joining') entry.early.push(data)
    else if (entry.state === 'open' && isFirst) {
      this.settle(entry)
      entry.expected.push(text)
    } else if (entry.state === 'open') this.#send(entry, text, true)
  }

  /** Whether `onJoined` runs for a member. The moment at which it has settled is not visible from outside. */
  #isHeld ({ session }: Entry): boolean {
    return (session as unknown as MemberSession).lag?.hold !== undefined
  }

  #send (entry: Entry, text: string, isOwn = false): void {
    this.settle(entry)
    if (this.#isHeld(entry)) entry.waiting.push({ text, isOwn })
    else entry.expected.push(text)
  }

  /** Call this before frames are compared: notes that `onJoined` may have settled. */
  settle (entry: Entry): void {
    if (!this.#isHeld(entry)) entry.expected.push(...entry.waiting.splice(0).map(({ text }) => text))
  }

  /** An ack or an error, which only `rooms.v1` has. */
  answer (entry: Entry, text: string): void {
    if (entry.state === 'open' && entry.mode === 'rooms.v1') this.#send(entry, text, true)
    else if (entry.isLeft && !entry.isCut) entry.expected.push(text)
  }

  /** The messages of a topic behind a position. */
  behind (topic: Topic, position: string): Published[] {
    const published = this.published.get(topic)!
    return published.slice(published.findIndex(({ id }) => id === position) + 1)
  }

  /** @param isRecovered - it is sent all messages since its position */
  joined (entry: Entry, isRecovered: boolean): void {
    const { mode, topic, since, session, early, expected } = entry
    entry.state = 'open'
    if (mode === 'rooms.v1') expected.push(`hello ${isRecovered ? since : this.position(topic)} ${session.id}`)
    for (const data of early) this.direct(entry, data, undefined, true)
    if (isRecovered) for (const { id, from, json } of this.behind(topic, since!)) expected.push(`message ${id} ${from} ${json}`)
  }

  /**
   * A member has left its room.
   * @param hasMore - its connection has more topics, and stays
   */
  left (entry: Entry, hasMore: boolean): void {
    entry.isCut = entry.waiting.length > 0
    entry.isLeft = hasMore && entry.state === 'open'
    entry.waiting = []
    entry.state = 'closed'
  }

  /** The server ends a member. */
  end (entry: Entry, code: number, reason: string): void {
    if (entry.state !== 'open') return
    this.settle(entry)
    this.answer(entry, `bye ${code} ${reason} ${this.#isHeld(entry) ? undefined : this.position(entry.topic)}`)
    // A member that waits for onJoined is sent no message of the room any more.
    entry.expected.push(...entry.waiting.splice(0).filter(({ isOwn }) => isOwn).map(({ text }) => text))
    entry.state = 'closed'
    entry.close = { code, reason }
  }
}

/** The list of members after presence frames, in the order of their arrival. */
export function fold (received: string[], fault: (text: string) => void): Map<string, Member> {
  let list = new Map<string, Member>()
  for (const text of received) {
    const frame = JSON.parse(text) as any
    if (frame.type !== 'presence') continue
    if (frame.state !== undefined) list = new Map(frame.state.map((member: Member) => [member.session, member]))
    for (const member of frame.join ?? []) list.set(member.session, member)
    for (const { session } of frame.leave ?? []) list.delete(session)
    if (list.size !== frame.count) fault(`a list of ${list.size} has the count ${frame.count}`)
  }
  return list
}
