import type { GoneUser } from '../../types/index.ts'
import type { ExchangeEvent } from './messages.ts'

/** Bytes that an event counts besides those that it carries. */
const eventBytes = 256

/** A node as the exchange sees it: the events that it is to be sent, and what it has attached. */
export class ExchangeNode {
  readonly name: string
  readonly topics = new Set<string>()
  readonly users = new Set<string>()
  /** Users that are gone, by the number of the report, which the node has not taken yet. */
  readonly told = new Map<number, readonly GoneUser[]>()
  /** It reads too slowly, and misses events until it has caught up. */
  isBehind = false
  readonly #mostUnread: number
  readonly #send: (events: ExchangeEvent[], size: number) => void
  readonly #dropped: () => void
  #events: ExchangeEvent[] = []
  #size = 0
  #unread = 0
  #flush: NodeJS.Immediate | undefined

  /**
   * @param mostUnread - most bytes that the node may have to read
   * @param send - sends the events of a turn, in order
   * @param dropped - counts an event that the node does not get
   */
  constructor (name: string, mostUnread: number, send: (events: ExchangeEvent[], size: number) => void, dropped: () => void) {
    this.name = name
    this.#mostUnread = mostUnread
    this.#send = send
    this.#dropped = dropped
  }

  /** Sends an event that the node has asked for, or that is small and rare. It does not count as unread: the node bounds its questions itself. */
  push (event: ExchangeEvent): void {
    this.#events.push(event)
    this.#flush ??= setImmediate(() => { this.#sendAll() })
  }

  /** Sends an event that a node which does not read may miss, because it is told of a loss. Returns whether it is sent. */
  offer (event: ExchangeEvent, bytes: number): boolean {
    if (!this.isBehind && this.#unread + this.#size + bytes > this.#mostUnread) {
      this.isBehind = true
      this.push({ type: 'check' })
    }
    if (this.isBehind) {
      this.#dropped()
      return false
    }
    this.#size += bytes + eventBytes
    this.push(event)
    return true
  }

  /** Reports users that are gone. They are for this node alone, so they go to another one if it ends before it has taken them. */
  tellGone (report: number, users: readonly GoneUser[]): void {
    this.told.set(report, users)
    this.push({ type: 'gone', report, users })
  }

  /** The node has taken the reports up to this one. */
  tookGone (report: number): void {
    for (const told of this.told.keys()) if (told <= report) this.told.delete(told)
  }

  /** The node has read so many bytes. */
  read (bytes: number): void {
    this.#unread = Math.max(0, this.#unread - bytes)
    if (!this.isBehind || this.#unread > this.#mostUnread / 2) return
    this.isBehind = false
    this.push({ type: 'lost' })
  }

  /** Sends nothing more. */
  end (): void {
    clearImmediate(this.#flush)
    this.#events = []
  }

  #sendAll (): void {
    this.#flush = undefined
    const [events, size] = [this.#events, this.#size]
    this.#events = []
    this.#size = 0
    this.#unread += size
    this.#send(events, size)
  }
}
