import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import type { ServerFrame } from '../../types/index.ts'

/** Milliseconds between two messages. */
const every = 5

/**
 * Two well-behaved members of one topic, one of which keeps sending numbered messages. Both must receive all of them in order, whatever else happens to the server.
 */
export class Pair {
  readonly faults: string[] = []
  /** Milliseconds from the send of a message to its arrival at the other member. */
  readonly latencies: number[] = []
  readonly url: string
  readonly #sockets: [WebSocket, WebSocket]
  readonly #sentAt: number[] = []
  readonly #seen = [0, 0]
  #acks = 0
  #session = ''
  #going = true
  #loop: Promise<void> = Promise.resolve()

  /** @param url - of their topic, `127.0.0.1:<port>/<path>` */
  static async start (url: string): Promise<Pair> {
    const sockets = [0, 1].map(() => new WebSocket(`ws://${url}`, { perMessageDeflate: false })) as [WebSocket, WebSocket]
    const pair = new Pair(url, sockets)
    await Promise.all(sockets.map(socket => once(socket, 'open')))
    while (pair.#session === '') await sleep(1)
    pair.#loop = pair.#talk()
    return pair
  }

  private constructor (url: string, sockets: [WebSocket, WebSocket]) {
    this.url = url
    this.#sockets = sockets
    for (const [index, socket] of sockets.entries()) {
      socket.on('message', data => { this.#receive(index, JSON.parse(data.toString()) as ServerFrame) })
      socket.on('error', error => { this.faults.push(`${url}: ${error.message}`) })
      socket.on('close', code => { if (this.#going) this.faults.push(`${url}: closed with ${code}`) })
    }
  }

  async #talk (): Promise<void> {
    while (this.#going) {
      const n = this.#sentAt.push(performance.now())
      this.#sockets[0].send(JSON.stringify({ type: 'message', ref: n, data: { n } }))
      await sleep(every)
    }
  }

  #receive (index: number, frame: ServerFrame): void {
    if (frame.type === 'hello' && index === 0) this.#session = frame.session
    if (frame.type === 'error') this.faults.push(`${this.url}: ${frame.error.message}`)
    if (frame.type === 'ack') {
      this.#acks++
      if (!frame.ok || frame.ref !== this.#acks) this.faults.push(`${this.url}: ack ${JSON.stringify(frame)} instead of ${this.#acks}`)
    }
    if (frame.type !== 'message' || frame.from !== this.#session) return
    const { n } = frame.data as { n: number }
    if (n !== ++this.#seen[index]!) {
      this.faults.push(`${this.url}: member ${index} got ${n} instead of ${this.#seen[index]}`)
      this.#seen[index] = n
    }
    if (index === 1) this.latencies.push(performance.now() - this.#sentAt[n - 1]!)
  }

  /** Stops sending, and waits until all messages have arrived. Returns the number of messages, and the latencies of this pair. */
  async stop (): Promise<{ sent: number, p50: number, p99: number, max: number }> {
    this.#going = false
    await this.#loop
    const sent = this.#sentAt.length
    const deadline = Date.now() + 20_000
    const isOver = (): boolean => (this.#acks >= sent && this.#seen.every(seen => seen >= sent)) || this.#sockets.some(({ readyState }) => readyState !== WebSocket.OPEN)
    while (!isOver() && Date.now() < deadline) await sleep(5)
    if (this.#seen.some(seen => seen !== sent) || this.#acks !== sent) this.faults.push(`${this.url}: of ${sent} messages ${this.#seen.join(' and ')} arrived, ${this.#acks} were acknowledged`)
    for (const socket of this.#sockets) socket.terminate()
    const sorted = this.latencies.toSorted((one, other) => one - other)
    const at = (share: number): number => Math.round(10 * sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!) / 10
    return { sent, p50: at(0.5), p99: at(0.99), max: at(1) }
  }
}
