import { setImmediate as nextTurn } from 'node:timers/promises'
import { asError } from '../error-utils.ts'
import { FST_ROOMS_BROKER_DOWN, FST_ROOMS_CLOSED, FST_ROOMS_DRAINING, FST_ROOMS_OVERLOADED } from '../errors.ts'
import type { Feed } from '../feed/feed.ts'
import { formatPosition, parsePosition } from '../protocol/position.ts'
import type { RoomReader } from '../room/reader.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import type { Page, PageRequest } from './read.ts'
import { snapshotText } from './snapshot.ts'

/** Requests that are answered in one turn of the event loop. A message that becomes text for them counts as one. */
const perTurn = 500

/** Milliseconds for which a topic stays attached after its last request was answered. A client that waits for the next message comes back within them. */
const lingering = 1_000

/** A request that waits for messages behind a position. */
export interface WaitRequest extends PageRequest {
  readonly since: string
}

/** The room of a topic, as requests that wait for its messages see it. */
export interface WaitedRoom {
  readonly size: number
  readonly feed: Pick<Feed, 'ready' | 'isReady' | 'position' | 'ended'>
}

/** The hub, as requests that wait see it. */
export interface WaitersPorts {
  /** Most requests that wait at a time. */
  readonly limit: number
  /** Enters a reader into the room of a topic, which is made if there is none. @throws if there may be no further room */
  enter (definition: TopicDefinition, topic: string, reader: RoomReader): WaitedRoom
  leave (topic: string, reader: RoomReader): void
  /** Reads a page. @throws if the broker does not answer */
  read (definition: TopicDefinition, topic: string, request: PageRequest): Promise<Page>
  /** Tells the host of an error of the broker. */
  failed (error: Error): void
}

/** One request that waits. */
export class Waiter {
  /** Settles with the answer, as JSON. */
  readonly answer: Promise<string>
  /** Most messages that it takes. */
  readonly limit: number
  readonly #group: Group
  readonly #timer: NodeJS.Timeout
  #resolve!: (text: string) => void
  #reject!: (error: Error) => void

  constructor (group: Group, limit: number, milliseconds: number) {
    this.#group = group
    this.limit = limit
    this.answer = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.#timer = setTimeout(() => { this.end() }, milliseconds)
  }

  /** Ends the wait, because its time is over or its client has gone. */
  end (): void {
    this.#group.over(this)
  }

  settle (text: string): void {
    this.#leave()
    this.#resolve(text)
  }

  fail (error: Error): void {
    this.#leave()
    this.#reject(error)
  }

  #leave (): void {
    clearTimeout(this.#timer)
    this.#group.remove(this)
  }
}

/** The requests that wait behind the same position of a topic. One page is read for all of them. */
class Group {
  readonly since: string
  readonly #topic: TopicWaiters
  readonly #waiters = new Set<Waiter>()
  /** Requests whose wait is over, and which are not answered yet. */
  readonly #over = new Set<Waiter>()
  /** The most messages that a request takes. */
  #limit: number
  /** Something newer may have come since the last reading. */
  #isOutdated: boolean
  #isReading = false
  /** All requests are being answered. */
  #isAnswered = false

  constructor (topic: TopicWaiters, { since, limit }: WaitRequest) {
    this.#topic = topic
    this.since = since
    this.#limit = limit
    this.#isOutdated = !topic.isAt(since)
    if (this.#isOutdated) this.read()
  }

  add (limit: number, milliseconds: number): Waiter {
    const waiter = new Waiter(this, limit, milliseconds)
    this.#waiters.add(waiter)
    this.#limit = Math.max(this.#limit, limit)
    return waiter
  }

  /** Ends the wait of a request: it is answered as soon as it is known whether there is anything newer. */
  over (waiter: Waiter): void {
    if (this.#isAnswered || !this.#waiters.has(waiter)) return
    this.#over.add(waiter)
    // Many waits end in one turn of the event loop. They are answered together.
    if (this.#over.size === 1) setImmediate(() => { this.#lookForOver() })
  }

  remove (waiter: Waiter): void {
    this.#waiters.delete(waiter)
    this.#over.delete(waiter)
    this.#topic.left()
    if (this.#waiters.size === 0) this.#topic.remove(this)
  }

  outdate (): void {
    this.#isOutdated = true
  }

  /** Reads the page. Answers all requests if there is anything newer, or if the position is lost. */
  async read (): Promise<void> {
    if (this.#isReading || this.#isAnswered) return // reads again if the group was outdated meanwhile
    this.#isReading = true
    try {
      await this.#topic.attached()
      while (this.#isOutdated) {
        this.#isOutdated = false
        const page = await this.#topic.read({ since: this.since, limit: this.#limit })
        if (page.messages.length > 0 || page.recovered !== true || page.ended !== undefined) {
          await this.#answer(page)
          return
        }
      }
    } catch (error) {
      this.fail(asError(error))
    } finally {
      this.#isReading = false
    }
    await this.#answerOver()
  }

  /** Ends all waits. Returns their answers. */
  end (): Promise<string>[] {
    const answers = Array.from(this.#waiters, waiter => {
      this.#over.add(waiter)
      return waiter.answer
    })
    this.#lookForOver()
    return answers
  }

  /** Answers the requests whose wait is over: now, or after a reading if the room has lost its place in the topic. */
  #lookForOver (): void {
    if (this.#topic.isAt(this.since)) this.#answerOver()
    else {
      this.outdate()
      this.read()
    }
  }

  async #answerOver (): Promise<void> {
    if (this.#over.size === 0) return
    const text = this.#topic.text({ position: parsePosition(this.since)!, messages: [], recovered: true, complete: true })
    let answered = 0
    for (const waiter of this.#over) {
      if (this.#isOutdated || this.#isReading) return // otherwise answers when it has read
      this.#topic.lingers = true
      waiter.settle(text)
      if (++answered % perTurn === 0) await nextTurn()
    }
  }

  fail (error: Error): void {
    for (const waiter of [...this.#waiters]) waiter.fail(error)
  }

  async #answer (page: Page): Promise<void> {
    this.#isAnswered = true
    this.#topic.lingers = page.recovered === true
    this.#topic.remove(this) // requests that come from now on wait for the next message
    let count = -1
    let text = ''
    let work = 0
    // Requests that take equally many messages share a text.
    for (const waiter of [...this.#waiters].sort((a, b) => b.limit - a.limit)) {
      if (count !== Math.min(waiter.limit, page.messages.length)) {
        count = Math.min(waiter.limit, page.messages.length)
        text = this.#topic.text(atMost(page, count))
        work += count
      }
      waiter.settle(text)
      if (++work < perTurn) continue
      work = 0
      await nextTurn()
    }
  }
}

/** The page that would have been read if so many messages had been the limit. */
function atMost (page: Page, count: number): Page {
  const { position, messages, recovered } = page
  if (count === messages.length) return page
  // A position that is lost is answered with the newest messages.
  if (recovered !== true) return { ...page, messages: messages.slice(-count) }
  return { position: { epoch: position!.epoch, offset: messages[count - 1]!.offset }, messages: messages.slice(0, count), recovered, complete: false }
}

/** All requests that wait for messages of one topic: one reader of its room. */
class TopicWaiters implements RoomReader {
  readonly #topic: string
  readonly #definition: TopicDefinition
  readonly #ports: WaitersPorts
  readonly #room: WaitedRoom
  readonly #all: Waiters
  readonly #groups = new Map<string, Group>()
  /** A request was answered that may be followed by the next one. */
  lingers = false
  #leaving: NodeJS.Timeout | undefined
  #isWoken = false

  constructor (all: Waiters, ports: WaitersPorts, definition: TopicDefinition, topic: string) {
    this.#all = all
    this.#ports = ports
    this.#definition = definition
    this.#topic = topic
    this.#room = ports.enter(definition, topic, this)
  }

  /** Whether a position is the one up to which the room has delivered, so that no reading is needed to know that there is nothing newer. */
  isAt (id: string): boolean {
    const { isReady, position, ended } = this.#room.feed
    return isReady && ended === undefined && position !== undefined && formatPosition(position) === id
  }

  add (request: WaitRequest, milliseconds: number): Waiter {
    clearTimeout(this.#leaving)
    let group = this.#groups.get(request.since)
    if (group === undefined) this.#groups.set(request.since, group = new Group(this, request))
    return group.add(request.limit, milliseconds)
  }

  /** Forgets a group. Without groups, the topic needs no room, but may soon need it again. */
  remove (group: Group): void {
    if (this.#groups.get(group.since) !== group) return
    this.#groups.delete(group.since)
    if (this.#groups.size > 0) return
    if (this.lingers && this.#room.feed.isReady && !this.#all.isReleased) this.#leaving = setTimeout(() => { this.#leave() }, lingering).unref()
    else this.#leave()
  }

  #leave (): void {
    clearTimeout(this.#leaving)
    this.#all.remove(this.#topic)
    this.#ports.leave(this.#topic, this)
  }

  /** Notes that one request waits no longer. */
  left (): void {
    this.#all.size--
  }

  /** Settles when the broker delivers the topic here. @throws FST_ROOMS_BROKER_DOWN if it does not; the host is told why */
  async attached (): Promise<void> {
    try {
      await this.#room.feed.ready
    } catch (error) {
      this.#ports.failed(asError(error))
      throw new FST_ROOMS_BROKER_DOWN()
    }
  }

  read (request: PageRequest): Promise<Page> {
    return this.#ports.read(this.#definition, this.#topic, request)
  }

  text (page: Page): string {
    return snapshotText(this.#topic, this.#room.size, page)
  }

  /** Answers at the end of this turn of the event loop, with all messages that have come by then. */
  push (): void {
    if (this.#isWoken) return
    this.#isWoken = true
    for (const group of this.#groups.values()) group.outdate()
    setImmediate(() => {
      this.#isWoken = false
      for (const group of [...this.#groups.values()]) group.read()
    })
  }

  ended (): void {
    this.push()
  }

  /** Looks whether messages have come that the broker did not deliver here. */
  interrupt (): boolean {
    this.push()
    return false
  }

  end (error: Error = new FST_ROOMS_CLOSED()): void {
    this.lingers = false
    for (const group of [...this.#groups.values()]) group.fail(error)
  }

  /** Ends all waits. Returns their answers. */
  release (): Promise<string>[] {
    if (this.#groups.size === 0) this.#leave()
    return [...this.#groups.values()].flatMap(group => group.end())
  }
}

/** The requests that wait for a message, of all topics. They are readers, not members: no session, no presence, no hooks. */
export class Waiters {
  /** Requests that wait now. */
  size = 0
  /** The app closes. */
  isReleased = false
  readonly #ports: WaitersPorts
  readonly #topics = new Map<string, TopicWaiters>()

  constructor (ports: WaitersPorts) {
    this.#ports = ports
  }

  /**
   * Waits for a message behind a position.
   * @throws FST_ROOMS_OVERLOADED if too many requests wait
   */
  add (definition: TopicDefinition, topic: string, request: WaitRequest, milliseconds: number): Waiter {
    if (this.size >= this.#ports.limit) throw new FST_ROOMS_OVERLOADED('too many requests wait for messages')
    let waiters = this.#topics.get(topic)
    if (waiters === undefined) this.#topics.set(topic, waiters = new TopicWaiters(this, this.#ports, definition, topic))
    this.size++
    return waiters.add(request, milliseconds)
  }

  remove (topic: string): void {
    this.#topics.delete(topic)
  }

  /**
   * Answers all requests with what there is. Settles when all are answered. Those for which the broker takes more than so many milliseconds are answered with
   * FST_ROOMS_DRAINING.
   */
  async release (milliseconds: number): Promise<void> {
    this.isReleased = true
    const answers = Promise.allSettled([...this.#topics.values()].flatMap(waiters => waiters.release()))
    let timer: NodeJS.Timeout | undefined
    await Promise.race([answers, new Promise(resolve => { timer = setTimeout(resolve, milliseconds) })])
    clearTimeout(timer)
    for (const waiters of [...this.#topics.values()]) waiters.end(new FST_ROOMS_DRAINING())
  }
}
