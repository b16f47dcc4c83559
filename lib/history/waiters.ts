import { setImmediate as nextTurn } from 'node:timers/promises'
import { asError } from '../error-utils.ts'
import { FST_ROOMS_BROKER_DOWN, FST_ROOMS_CLOSED, FST_ROOMS_DRAINING, FST_ROOMS_OVERLOADED } from '../errors.ts'
import type { Feed } from '../feed/feed.ts'
import { formatPosition, parsePosition } from '../protocol/position.ts'
import type { RoomReader } from '../room/reader.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import type { Page, PageRequest } from './read.ts'
import { snapshotText } from './snapshot.ts'

/** Requests that are answered in one turn of the event loop. */
const perTurn = 500

/** A request that waits for messages behind a position. */
export interface WaitRequest extends PageRequest {
  readonly since: string
}

/** The room of a topic, as requests that wait for its messages see it. */
export interface WaitedRoom {
  readonly size: number
  readonly feed: Pick<Feed, 'ready' | 'isReady' | 'position'>
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
  readonly #group: Group
  readonly #timer: NodeJS.Timeout
  #resolve!: (text: string) => void
  #reject!: (error: Error) => void

  constructor (group: Group, milliseconds: number) {
    this.#group = group
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

/** The requests that wait for the same page of a topic. The page is read once for all of them, and becomes text once. */
class Group {
  readonly key: string
  readonly #topic: TopicWaiters
  readonly #request: WaitRequest
  readonly #waiters = new Set<Waiter>()
  /** Requests whose wait is over, and which are not answered yet. */
  readonly #over = new Set<Waiter>()
  /** Something newer may have come since the last reading. */
  #isOutdated: boolean
  #isReading = false

  constructor (topic: TopicWaiters, key: string, request: WaitRequest) {
    this.#topic = topic
    this.key = key
    this.#request = request
    this.#isOutdated = !topic.isAt(request.since)
    if (this.#isOutdated) this.read()
  }

  add (milliseconds: number): Waiter {
    const waiter = new Waiter(this, milliseconds)
    this.#waiters.add(waiter)
    return waiter
  }

  /** Ends the wait of a request: it is answered as soon as it is known whether there is anything newer. */
  over (waiter: Waiter): void {
    if (!this.#waiters.has(waiter)) return // answered
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
    if (this.#isReading) return // reads again if the group was outdated meanwhile
    this.#isReading = true
    try {
      await this.#topic.attached()
      while (this.#isOutdated) {
        this.#isOutdated = false
        const page = await this.#topic.read(this.#request)
        if (page.messages.length > 0 || page.recovered !== true) {
          await this.#answer(this.#topic.text(page))
          return
        }
      }
    } catch (error) {
      this.fail(asError(error))
    } finally {
      this.#isReading = false
    }
    this.#answerOver()
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
    if (this.#topic.isAt(this.#request.since)) this.#answerOver()
    else {
      this.outdate()
      this.read()
    }
  }

  #answerOver (): void {
    if (this.#isOutdated || this.#isReading || this.#over.size === 0) return // otherwise answers when it has read
    const text = this.#topic.text({ position: parsePosition(this.#request.since)!, messages: [], recovered: true, complete: true })
    for (const waiter of this.#over) waiter.settle(text)
  }

  fail (error: Error): void {
    for (const waiter of [...this.#waiters]) waiter.fail(error)
  }

  async #answer (text: string): Promise<void> {
    this.#topic.remove(this) // requests that come from now on wait for the next message
    let answered = 0
    for (const waiter of [...this.#waiters]) {
      waiter.settle(text)
      if (++answered % perTurn === 0) await nextTurn()
    }
  }
}

/** All requests that wait for messages of one topic: one reader of its room. */
class TopicWaiters implements RoomReader {
  readonly #topic: string
  readonly #definition: TopicDefinition
  readonly #ports: WaitersPorts
  readonly #room: WaitedRoom
  readonly #all: Waiters
  readonly #groups = new Map<string, Group>()
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
    const { isReady, position } = this.#room.feed
    return isReady && position !== undefined && formatPosition(position) === id
  }

  add (request: WaitRequest, milliseconds: number): Waiter {
    const key = `${request.since} ${request.limit}`
    let group = this.#groups.get(key)
    if (group === undefined) this.#groups.set(key, group = new Group(this, key, request))
    return group.add(milliseconds)
  }

  /** Forgets a group. Without groups, the topic needs no room. */
  remove (group: Group): void {
    if (this.#groups.get(group.key) !== group) return
    this.#groups.delete(group.key)
    if (this.#groups.size > 0) return
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

  /** Looks whether messages have come that the broker did not deliver here. */
  interrupt (): boolean {
    this.push()
    return false
  }

  end (error: Error = new FST_ROOMS_CLOSED()): void {
    for (const group of [...this.#groups.values()]) group.fail(error)
  }

  /** Ends all waits. Returns their answers. */
  release (): Promise<string>[] {
    return [...this.#groups.values()].flatMap(group => group.end())
  }
}

/** The requests that wait for a message, of all topics. They are readers, not members: no session, no presence, no hooks. */
export class Waiters {
  /** Requests that wait now. */
  size = 0
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
    const answers = Promise.allSettled([...this.#topics.values()].flatMap(waiters => waiters.release()))
    let timer: NodeJS.Timeout | undefined
    await Promise.race([answers, new Promise(resolve => { timer = setTimeout(resolve, milliseconds) })])
    clearTimeout(timer)
    for (const waiters of [...this.#topics.values()]) waiters.end(new FST_ROOMS_DRAINING())
  }
}
