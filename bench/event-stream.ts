import { host, Receiver, shared } from './receiver.ts'

const endOfEvent = Buffer.from('\n\n')

/** The last bytes in which events were counted. A server sends the same bytes to all members, and comparing them costs less than counting again. */
let countedBytes = Buffer.alloc(0)
let countedEvents = 0

function eventsIn (bytes: Buffer): number {
  if (bytes.length === countedBytes.length && bytes.equals(countedBytes)) return countedEvents
  countedEvents = 0
  for (let at = bytes.indexOf(endOfEvent); at !== -1; at = bytes.indexOf(endOfEvent, at + endOfEvent.length)) countedEvents++
  countedBytes = Buffer.from(bytes)
  return countedEvents
}

/**
 * A client of an event stream that costs little: it counts the ends of events, which is possible without reading the chunks of HTTP/1.1, because these begin and end
 * with CRLF. Its first event with data tells that it is a member.
 */
export class EventStreamMember extends Receiver {
  #head = ''
  #isReady = false
  /** The last byte was the first one of an end of an event. */
  #endsHalf = false

  protected override get request (): string {
    const { room, port } = this.options
    return `GET /r/${room} HTTP/1.1\r\nHost: ${host}:${port}\r\nAccept: text/event-stream\r\n\r\n`
  }

  protected override read (length: number): void {
    const bytes = shared.subarray(0, length)
    if (!this.#isReady) {
      this.#readHead(bytes)
      return
    }
    let count = eventsIn(bytes)
    if (this.#endsHalf && bytes[0] === 0x0a) count++
    this.#endsHalf = bytes[length - 1] === 0x0a && bytes[length - 2] !== 0x0a && bytes[length - 2] !== 0x0d
    if (count > 0) this.tally.add(count)
  }

  #readHead (bytes: Buffer): void {
    this.#head += bytes.toString('latin1')
    const data = this.#head.indexOf('data:')
    if (data !== -1 && this.#head.includes('\n\n', data)) {
      if (/^HTTP\/1\.1 200 [^]*content-type: text\/event-stream/i.test(this.#head)) {
        this.#isReady = true
        this.joined()
      } else this.#refused()
    } else if (!this.#head.startsWith('HTTP/1.1 200'.slice(0, this.#head.length))) this.#refused()
  }

  #refused (): void {
    this.end(new Error(`no event stream: ${this.#head.split('\r\n')[0]}`))
    this.socket.destroy()
  }
}
