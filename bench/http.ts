import { connect, type Socket } from 'node:net'
import { host, shared, type Tally } from './receiver.ts'

const endOfHead = Buffer.from('\r\n\r\n')

/** Sends requests in a closed loop, one at a time on each connection, and counts the answers, which must all have the given status. */
export function requests (port: number, connections: number, body: string, tally: Tally): { stop: () => void } {
  const request = Buffer.from(`POST /r/news HTTP/1.1\r\nHost: ${host}:${port}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`)
  const ok = Buffer.from('HTTP/1.1 200')
  let stopped = false
  const sockets = Array.from({ length: connections }, () => {
    let left = 0
    const socket = connect({
      host,
      port,
      onread: {
        buffer: shared,
        callback: length => {
          if (left > 0) {
            left -= length
          } else {
            const bytes = shared.subarray(0, length)
            const end = bytes.indexOf(endOfHead)
            const size = /content-length: (\d+)/i.exec(bytes.toString('latin1', 0, end))
            if (bytes.indexOf(ok) !== 0 || end === -1 || size === null) {
              tally.failed(new Error(`an answer that is no 200: ${bytes.toString('latin1', 0, 200)}`))
              return true
            }
            left = end + endOfHead.length + Number(size[1]) - length
          }
          if (left === 0) {
            tally.add(1)
            if (!stopped) socket.write(request)
          }
          return true
        }
      }
    })
    socket.setNoDelay(true)
    socket.on('error', error => { tally.failed(error) })
    socket.on('connect', () => { socket.write(request) })
    return socket
  })
  return {
    stop: () => {
      stopped = true
      for (const socket of sockets) socket.destroy()
    }
  }
}

/** Long polls: each connection waits for the next message of a room, on and on. */
export class Polls {
  readonly #sockets: Socket[]
  readonly #tally: Tally
  readonly #port: number
  /** The id in the last answer, which is the same in all of them. */
  id = '0'

  constructor (port: number, connections: number, tally: Tally) {
    this.#port = port
    this.#tally = tally
    this.#sockets = Array.from({ length: connections }, () => this.#connect())
  }

  async connected (): Promise<void> {
    await Promise.all(this.#sockets.map(socket => new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))))
  }

  /** Sends one request on each connection, which waits. */
  wait (): void {
    const request = Buffer.from(`GET /r/room:0?since=${this.id}&wait=60000 HTTP/1.1\r\nHost: ${host}:${this.#port}\r\n\r\n`)
    for (const socket of this.#sockets) socket.write(request)
  }

  stop (): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  #connect (): Socket {
    let left = 0
    const socket = connect({
      host,
      port: this.#port,
      onread: {
        buffer: shared,
        callback: length => {
          if (left === 0) {
            const bytes = shared.subarray(0, length)
            const end = bytes.indexOf(endOfHead)
            const head = bytes.toString('latin1', 0, end)
            const size = Number(/content-length: (\d+)/i.exec(head)?.[1])
            if (!head.startsWith('HTTP/1.1 200') || !(size > 0)) {
              this.#tally.failed(new Error(`an answer that is no 200: ${bytes.toString('latin1', 0, 300)}`))
              return true
            }
            // The answers to one message are alike, so one of them is read.
            if (socket === this.#sockets[0]) this.id = /"id":"([^"]+)"/.exec(bytes.toString('latin1', end, length))![1]!
            left = end + endOfHead.length + size
          }
          left -= length
          if (left === 0) this.#tally.add(1)
          else if (left < 0) this.#tally.failed(new Error('an answer is longer than it says'))
          return true
        }
      }
    })
    socket.setNoDelay(true)
    socket.on('error', error => { this.#tally.failed(error) })
    return socket
  }
}
