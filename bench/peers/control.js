// The code that all peers share. Plain JavaScript, because peers run without a loader, under Node.js and under Bun.
import cluster from 'node:cluster'
import { createServer } from 'node:net'
import { monitorEventLoopDelay } from 'node:perf_hooks'

/** The server's settings for a scenario: `{ rooms, deflate, large, lobby, except, post, drain, redis, adapter, workers }`. `redis` is a port. */
export const setup = JSON.parse(process.env.BENCH ?? '{}')

/** Whether this process is the primary of a cluster: it serves nothing itself, and calls `forkWorkers`. */
export const isPrimary = setup.workers !== undefined && cluster.isPrimary

export const host = '127.0.0.1'

/** The schema of every message: the typed topic of fastify-rooms and the body of the HTTP routes are checked against it. */
export const schema = {
  type: 'object',
  additionalProperties: false,
  required: ['seq', 't', 'user', 'text'],
  properties: {
    seq: { type: 'integer' },
    t: { type: 'integer' },
    user: { type: 'string', maxLength: 64 },
    text: { type: 'string', maxLength: 2000 },
    items: {
      type: 'array',
      items: {
        type: 'object',
        additionalProperties: false,
        required: ['name', 'value', 'unit'],
        properties: { name: { type: 'string' }, value: { type: 'number' }, unit: { type: 'string' } }
      }
    }
  }
}

/** A little more than 1 KiB of JSON with `seq` and the other members, so that it is compressed; it compresses as such data does. */
const items = ['temperature', 'pressure', 'humidity', 'voltage', 'current', 'frequency', 'throughput', 'latency', 'utilisation', 'temperature-2', 'pressure-2', 'humidity-2', 'voltage-2', 'current-2', 'frequency-2', 'throughput-2', 'latency-2', 'load-2', 'utilisation-2', 'packets', 'errors']
  .map((name, index) => ({ name, value: Math.round(1e6 * Math.abs(Math.sin(index + 1))) / 1e3, unit: ['K', 'hPa', '%', 'V', 'A', 'Hz'][index % 6] }))

let seq = 0

function collect () {
  if (globalThis.Bun !== undefined) globalThis.Bun.gc(true)
  else for (let i = 0; i < 3; i++) globalThis.gc?.()
}

async function fill (broadcast, names, rooms, count) {
  const settled = async () => {
    for (let i = 0; i < 2; i++) {
      await new Promise(resolve => setTimeout(resolve, 500))
      collect()
    }
    const { heapUsed, external } = process.memoryUsage()
    return heapUsed + external
  }
  await broadcast(names[0], message(0)) // compiles code
  const before = await settled()
  let content = 0
  for (let i = 0; i < rooms; i++) {
    const answers = []
    for (let n = 0; n < count; n++) {
      const one = message(0)
      content += JSON.stringify(one).length
      answers.push(broadcast(names[i], one))
    }
    if (i % 10 === 0) {
      await Promise.all(answers)
      await new Promise(resolve => setImmediate(resolve))
    }
  }
  return `${await settled() - before} ${content}\n`
}

/** @param {number} t - a time stamp of the load generator, in microseconds; 0 if latency is not measured */
function message (t) {
  const small = { seq: ++seq, t, user: 'u42', text: 'forty-two characters of text, give or take' }
  if (setup.payload !== undefined) small.text = 'x'.repeat(setup.payload - JSON.stringify({ ...small, text: '' }).length)
  return setup.large ? { ...small, items } : small
}

/**
 * Forks the workers of a scenario, and prints the ports of all when they listen. They read the same standard input, and end with it. The primary ends after the last
 * one, because the next run must not share its core with a worker of this one.
 */
export function forkWorkers () {
  const workers = []
  const told = ({ id, process: { pid } }, { listens }) => {
    if (listens === undefined) return
    workers.push({ id, pid, ...listens })
    if (workers.length < setup.workers) return
    // From here on the primary does nothing for the benchmark.
    cluster.off('message', told)
    workers.sort((a, b) => a.id - b.id)
    console.log(JSON.stringify({ ...workers[0], workers }))
  }
  cluster.on('message', told)
  let ended = false
  let left = setup.workers
  process.stdin.resume()
  process.stdin.on('end', () => { ended = true })
  cluster.on('exit', (_worker, code) => {
    if (--left === 0 || !ended) process.exit(code)
  })
  for (let i = 0; i < setup.workers; i++) cluster.fork()
}

/**
 * Prints the port of the server, or tells it to the primary, and takes commands on a TCP port of its own:
 * `b <rooms> <count>` broadcasts that many messages to each room within one turn of the loop, `t <stamp>` broadcasts one message with the stamp
 * to room 0 or to the one with the number behind it, `p <count>` broadcasts a message to room 0 and so many more and answers with the id of the first, `m <rooms> <count>`
 * fills rooms and answers with the growth of memory and the bytes of the payloads, `w <count>` answers when so many requests wait, `g` collects garbage and answers with a line, `d` drains and answers with the longest stall of the loop in milliseconds.
 * The process ends with its standard input, so that no process outlives the benchmark.
 *
 * @param {number} port
 * @param {(room: string, message: object) => void | Promise<{ id?: string }>} broadcast
 * @param {() => Promise<void>} [drain]
 * @param {() => number} [waiting] - counts requests that wait
 */
export function ready (port, broadcast, drain, waiting) {
  const names = Array.from({ length: setup.rooms ?? 1 }, (_, index) => `room:${index}`)
  const run = (socket, [command, first, second]) => {
    if (command === 'b') {
      for (let room = 0; room < Number(first); room++) {
        for (let i = 0; i < Number(second); i++) broadcast(names[room], message(0))
      }
    } else if (command === 't') {
      broadcast(names[Number(second ?? 0)], message(Number(first)))
    } else if (command === 'p') {
      broadcast(names[0], message(0)).then(({ id }) => {
        for (let i = 0; i < Number(first); i++) broadcast(names[0], message(0))
        socket.write(`${id}\n`)
      })
    } else if (command === 'm') {
      fill(broadcast, names, Number(first), Number(second)).then(answer => { socket.write(answer) })
    } else if (command === 'w') {
      const look = () => { waiting() >= Number(first) ? socket.write('ok\n') : setTimeout(look, 2) }
      look()
    } else if (command === 'g') {
      collect()
      socket.write('ok\n')
    } else if (command === 'd') {
      const delay = monitorEventLoopDelay({ resolution: 1 })
      delay.enable()
      drain().then(() => {
        delay.disable()
        socket.write(`${delay.max / 1e6}\n`)
      })
    }
  }
  const control = createServer(socket => {
    let rest = ''
    socket.setNoDelay(true)
    socket.setEncoding('latin1')
    socket.on('error', () => {})
    socket.on('data', text => {
      const lines = (rest + text).split('\n')
      rest = lines.pop()
      for (const line of lines) run(socket, line.split(' '))
    })
  })
  // A worker shares no port with others.
  control.listen({ port: 0, host, exclusive: true }, () => {
    const listens = { port, control: control.address().port }
    if (setup.workers === undefined) console.log(JSON.stringify(listens))
    else process.send({ listens })
  })
  process.stdin.resume()
  process.stdin.on('end', () => { process.exit(0) })
}

/** The members of each room, for servers that have no rooms of their own. */
export class RoomMap {
  #rooms = new Map()

  /** @param {string} room @returns {Iterable<any>} */
  members (room) { return this.#rooms.get(room) ?? [] }

  join (room, socket) {
    const members = this.#rooms.get(room)
    if (members === undefined) this.#rooms.set(room, new Set([socket]))
    else members.add(socket)
    socket.on('close', () => { this.#rooms.get(room).delete(socket) })
  }
}
