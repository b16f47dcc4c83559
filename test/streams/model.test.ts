import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { memoryBroker } from '../../lib/index.ts'
import { connect } from '../helpers/app.ts'
import { random as numbersFrom } from '../helpers/random.ts'
import { rawReader, serveStreams, slowBroker } from '../helpers/streams.ts'

type Outcome = { got: unknown[], end: unknown }

/** Reads over a WebSocket that is cut at random, and comes back with the last id, until the server says that the stream has ended. */
async function readCut (t: Test, url: string, name: string, random: () => number): Promise<Outcome> {
  const outcome: Outcome = { got: [], end: undefined }
  let since: string | undefined
  for (;;) {
    const client = await connect(t, `${url}/rooms/${name}${since === undefined ? '' : `?since=${since}`}`)
    let isCut = false
    let left = random() < 0.3 ? Infinity : Math.floor(random() * 6)
    client.socket.on('message', data => {
      if (left-- <= 0) {
        isCut = true
        client.socket.terminate()
        return
      }
      const frame = JSON.parse(data.toString())
      if (frame.recovered === false) throw new Error(`${name}: ${since} is lost`)
      since = frame.id ?? since
      if (frame.type === 'message') outcome.got.push(frame.data)
      if (frame.type === 'end') {
        if (outcome.end !== undefined) throw new Error(`${name}: a second end`)
        outcome.end = frame
      }
    })
    // Frames that have come with the response of the upgrade.
    for (const text of client.received.splice(0)) client.socket.emit('message', Buffer.from(text))
    const { code } = await client.closed
    if (code === 1000 && !isCut) return outcome
    await sleep(random() * 5)
  }
}

/** Reads pages, each of which waits for the next part. */
async function readPages (url: string, name: string, random: () => number): Promise<Outcome> {
  const got: unknown[] = []
  for (let query = ''; ;) {
    const page = await (await fetch(`http://${url}/rooms/${name}?limit=${1 + Math.floor(random() * 5)}${query}`)).json() as any
    if (page.recovered === false) throw new Error(`${name}: ${query} is lost`)
    // The first page may begin with a later message than the first one. Then the reader begins anew, behind nothing.
    if (page.recovered === undefined && !page.complete) {
      query = `&since=${String(page.id).replace(/\d+$/, '0')}`
      continue
    }
    got.push(...page.messages.map(({ data }: any) => data))
    if (page.ended !== undefined) return { got, end: { type: 'end', ...page.ended } }
    query = `&since=${page.id}&wait=10000`
  }
}

for (const [kind, broker] of [['the memory broker', memoryBroker], ['a broker that answers later', slowBroker]] as const) {
  t.test(`${kind}: readers that are cut and come back, late readers and pages have exactly the stream`, async t => {
    const { rooms, url, claim } = await serveStreams(t, { broker: broker(), limits: { perAddress: 10_000 } })
    for (let seed = 1; seed <= 25; seed++) {
      const random = numbersFrom(seed)
      const name = `run:${seed}`
      const run = await claim(name)
      const length = Math.floor(random() * 25)
      const readers = Array.from({ length: 5 }, async (_, n) => {
        await sleep(random() * 25)
        return n === 4 ? readPages(url, name, random) : readCut(t, url, name, random)
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
