import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { memoryBroker } from '../../lib/index.ts'
import { connect } from '../helpers/app.ts'
import { eventsIn } from '../helpers/event-stream.ts'
import { random as numbersFrom } from '../helpers/random.ts'
import { rawReader, serveStreams, slowBroker } from '../helpers/streams.ts'

const seeds = Number(process.env.SCHEDULES ?? 25)

type Outcome = { got: unknown[], end: unknown }

/** The frames that a server sends over one connection. */
interface Connection {
  /** Why the connection has ended: a close code, the status of a response, or `cut`. */
  readonly ended: Promise<number | 'cut'>
}

/** A reader's connection. It is cut before the frame at which `received` returns `false`. */
type Open = (t: Test, url: string, since: string | undefined, received: (frame: any, id?: string) => boolean) => Promise<Connection>

const openSocket: Open = async (t, url, since, received) => {
  const client = await connect(t, `${url}${since === undefined ? '' : `?since=${since}`}`)
  let isCut = false
  client.socket.on('message', data => {
    if (isCut || received(JSON.parse(data.toString()))) return
    isCut = true
    client.socket.terminate()
  })
  // Frames that have come with the response of the upgrade.
  for (const text of client.received.splice(0)) client.socket.emit('message', Buffer.from(text))
  return { ended: client.closed.then(({ code }) => isCut ? 'cut' : code) }
}

/** An event stream, as an EventSource reads it: it comes back with the last `id:`, until it is answered 204. */
const openEvents: Open = async (_t, url, since, received) => {
  const abort = new AbortController()
  const { status, body } = await fetch(`http://${url}`, { headers: { accept: 'text/event-stream', ...(since === undefined ? {} : { 'last-event-id': since }) }, signal: abort.signal })
  const read = async (): Promise<number | 'cut'> => {
    let text = ''
    for await (const chunk of body?.pipeThrough(new TextDecoderStream()) ?? []) {
      text += chunk
      const end = text.lastIndexOf('\n\n') + 2
      if (end === 1) continue
      for (const { event, data, id } of eventsIn(text.slice(0, end))) {
        if (event !== undefined || data === undefined || received(JSON.parse(data), id ?? '')) continue
        abort.abort()
        return 'cut'
      }
      text = text.slice(end)
    }
    return status
  }
  return { ended: read() }
}

/** Reads over connections that are cut at random, and comes back with the last id, until the server says that the stream has ended. */
async function readCut (t: Test, url: string, name: string, random: () => number, isEvents: boolean): Promise<Outcome> {
  const outcome: Outcome = { got: [], end: undefined }
  let since: string | undefined
  for (;;) {
    let left = random() < 0.3 ? Infinity : Math.floor(random() * 6)
    const { ended } = await (isEvents ? openEvents : openSocket)(t, `${url}/rooms/${name}`, since, (frame, id = frame.id) => {
      if (left-- <= 0) return false
      if (frame.recovered === false) throw new Error(`${name}: ${since} is lost`)
      if (id !== undefined && id !== '') since = id
      if (frame.type === 'message') outcome.got.push(frame.data)
      if (frame.type === 'end') {
        if (outcome.end !== undefined) throw new Error(`${name}: a second end`)
        outcome.end = frame
      }
      return true
    })
    if (await ended === (isEvents ? 204 : 1000)) return outcome
    await sleep(random() * 5)
  }
}

/** Reads pages, each of which waits for the next part. Some requests are cut. */
async function readPages (url: string, name: string, random: () => number): Promise<Outcome> {
  const got: unknown[] = []
  for (let query = ''; ;) {
    const signal = random() < 0.3 ? AbortSignal.timeout(Math.floor(random() * 10)) : null
    const page = await fetch(`http://${url}/rooms/${name}?limit=${1 + Math.floor(random() * 5)}${query}`, { signal }).then(response => response.json()).catch((error: Error) => {
      if (error.name !== 'TimeoutError') throw error
    }) as any
    if (page === undefined) continue
    if (page.recovered === false) throw new Error(`${name}: ${query} is lost`)
    // The first page may begin with a later message than the first one. Then the reader begins anew, behind nothing.
    if (page.recovered === undefined && !page.complete) {
      query = `&since=${String(page.id).replace(/\d+$/, '0')}`
      continue
    }
    got.push(...page.messages.map(({ data }: any) => data))
    if (page.ended !== undefined) return { got, end: { type: 'end', ...page.ended } }
    query = `&since=${page.id}&wait=${1 + Math.floor(random() ** 2 * 10_000)}`
  }
}

for (const [kind, broker] of [['the memory broker', memoryBroker], ['a broker that answers later', slowBroker]] as const) {
  t.test(`${kind}: readers that are cut and come back, late readers and pages have exactly the stream`, async t => {
    const { rooms, url, claim } = await serveStreams(t, { broker: broker(), limits: { perAddress: 10_000 } })
    for (let seed = 1; seed <= seeds; seed++) {
      const random = numbersFrom(seed)
      const name = `run:${seed}`
      const run = await claim(name)
      const length = Math.floor(random() * 25)
      const readers = Array.from({ length: 8 }, async (_, n) => {
        await sleep(random() * 25)
        return n < 2 ? readPages(url, name, random) : readCut(t, url, name, random, n < 5)
      })
      const raw = (async () => {
        await sleep(random() * 25)
        const client = await rawReader(t, url, '', name)
        const { code } = await client.closed
        return { code, got: client.received.map(text => JSON.parse(text)) }
      })()
      const writes: Promise<unknown>[] = []
      for (let n = 0; n < length; n++) {
        const written = run.write(n)
        writes.push(written)
        if (random() < 0.5) await written
        if (random() < 0.3) await sleep(random() * 4)
      }
      const isStopped = random() < 0.3
      if (isStopped) await rooms.stop(name)
      else await run.end({ seed })
      await Promise.all(writes)
      const { id, reason } = await run.end()
      const end = { type: 'end', id, reason, ...(isStopped ? {} : { data: { seed } }) }
      const expected = Array.from({ length }, (_, n) => n)
      for (const outcome of await Promise.all(readers)) t.same(outcome, { got: expected, end }, `seed ${seed}`)
      t.same(await raw, { code: 1000, got: expected }, `seed ${seed}, raw`)
    }
    t.equal(rooms.stats().brokerFaults, 0)
  })
}
