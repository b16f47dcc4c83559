import { Readable } from 'node:stream'
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { memoryBroker } from '../../lib/index.ts'
import { reader, serveStreams, slowBroker } from '../helpers/streams.ts'
import { turnsOf } from '../helpers/turns.ts'

async function * words (text: string): AsyncGenerator<string> {
  for (const word of text.split(' ')) {
    await turn()
    yield word
  }
}

const never = (): Promise<never> => new Promise(() => {})

for (const [kind, broker] of [['the memory broker', memoryBroker], ['a broker that answers later', slowBroker]] as const) {
  t.test(`${kind}: pipe writes all parts and the end`, async t => {
    const { rooms, claim } = await serveStreams(t, { broker: broker() })
    const sources: [string, AsyncIterable<unknown> | ReadableStream<unknown>][] = [
      ['generator', words('a b c')],
      ['web', new ReadableStream({ start (controller) { for (const word of ['a', 'b', 'c']) controller.enqueue(word); controller.close() } })],
      ['node', Readable.from(['a', 'b', 'c'])]
    ]
    for (const [name, source] of sources) {
      const run = await claim(`run:${name}`)
      const end = await run.pipe(source)
      t.match(end, { topic: `run:${name}`, reason: 'done' })
      const { messages, ended } = await rooms.history(`run:${name}`)
      t.same(messages.map(({ data }: any) => data), ['a', 'b', 'c'], name)
      t.same(ended, { id: end.id, reason: 'done' })
    }
  })

  t.test(`${kind}: merge joins what one turn has brought`, async t => {
    const { rooms, claim } = await serveStreams(t, { broker: broker() })
    async function * bursts (): AsyncGenerator<string> {
      for (const burst of ['abc', 'def']) {
        for (const letter of burst) yield letter
        await sleep(30)
      }
      yield 'g'
    }
    const run = await claim()
    t.match(await run.pipe(bursts(), { merge: (a: string, b: string) => a + b }), { reason: 'done' })
    t.same((await rooms.history('run:1')).messages.map(({ data }: any) => data), ['abc', 'def', 'g'])
  })

  t.test(`${kind}: a source that throws fails the stream`, async t => {
    const { url, claim } = await serveStreams(t, { broker: broker() })
    for (const [name, merge] of [['one', undefined], ['two', (a: string, b: string) => a + b]] as const) {
      const run = await claim(`run:${name}`)
      const client = await reader(t, url, '', `run:${name}`)
      async function * failing (): AsyncGenerator<string> {
        yield 'a'
        await sleep(5)
        throw new Error('the model broke')
      }
      await t.rejects(run.pipe(failing(), merge === undefined ? {} : { merge }), { message: 'the model broke' })
      t.match(await client.rest(), ['a', { type: 'end', reason: 'failed', data: undefined }, { code: 1000 }], 'readers are told nothing of the error')
      t.match(run.signal.reason, { message: 'the model broke' })
    }
  })

  t.test(`${kind}: what ends a pipe besides its source`, async t => {
    const { rooms, claim } = await serveStreams(t, { broker: broker() }, { message: { type: 'string' } })
    let run = await claim('run:payload')
    await t.rejects(run.pipe((async function * () { yield 'a'; yield 7; await never() })() as never), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
    t.match(await run.end(), { reason: 'failed' })
    t.match((await rooms.history('run:payload')).ended, { reason: 'failed', data: { code: 'FST_ROOMS_INVALID_PAYLOAD' } }, 'an error with a status of 400 to 499 is for readers')
    run = await claim('run:late')
    await t.rejects(run.pipe((async function * () { yield 'a'; await turn(); await turn(); await sleep(20); yield 7 })() as never, { merge: (_a, b) => b }), { code: 'FST_ROOMS_INVALID_PAYLOAD' }, 'also of the last message that is merged')
    run = await claim('run:next')
    await t.rejects(run.pipe((async function * () { yield 7; await sleep(50); yield 'b'; await never() })() as never, { merge: (_a, b) => b }), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
    run = await claim('run:merge')
    await t.rejects(run.pipe((async function * () { yield 'a'; yield 'b'; await never() })(), { merge: () => { throw new Error('no merge') } }), { message: 'no merge' })
    t.match(run.signal.reason, { message: 'no merge' })
  })
}

t.test('stop ends the reading, also of a source that hangs', async t => {
  const { rooms, claim } = await serveStreams(t)
  const ended: string[] = []
  const hanging = {
    [Symbol.asyncIterator]: () => ({ next: never, return: async () => { ended.push('iterator'); return { done: true as const, value: undefined } } })
  }
  const web = new ReadableStream<unknown>({ cancel: () => { ended.push('web') } })
  const node = new Readable({ objectMode: true, read () {}, destroy (_error, done) { ended.push('node'); done(null) } })
  const bare = { [Symbol.asyncIterator]: () => ({ next: never }) }
  const thrower = { [Symbol.asyncIterator]: () => ({ next: never, return: () => { throw new Error('ignored') } }) }
  for (const [name, source] of [['iterator', hanging], ['web', web], ['node', node], ['bare', bare], ['thrower', thrower]] as const) {
    const run = await claim(`run:${name}`)
    const piped = run.pipe(source as AsyncIterable<unknown>)
    await turn()
    t.equal(await rooms.stop(`run:${name}`), true)
    t.match(await piped, { reason: 'stopped' })
    t.equal(run.signal.aborted, true)
    t.equal(run.signal.reason.name, 'AbortError')
  }
  await turn()
  t.same(ended, ['iterator', 'web', 'node'])
  t.equal(rooms.stats().errors, 0)
})

t.test('a source that is aborted by the signal has not failed', async t => {
  const { rooms, claim } = await serveStreams(t)
  const run = await claim()
  async function * model (): AsyncGenerator<number> {
    for (let n = 0; ; n++) {
      await sleep(1, undefined, { signal: run.signal })
      yield n
    }
  }
  const piped = run.pipe(model())
  await sleep(20)
  await rooms.stop('run:1')
  t.match(await piped, { reason: 'stopped' })
  t.equal(rooms.stats().errors, 0)
})

t.test('a pipe that comes after the end cancels its source', async t => {
  const { rooms, claim } = await serveStreams(t)
  const run = await claim()
  await rooms.stop('run:1')
  let reads = 0
  let returns = 0
  const source = { [Symbol.asyncIterator]: () => ({ next: async () => { reads++; return { done: true as const, value: undefined } }, return: async () => { returns++; return { done: true as const, value: undefined } } }) }
  t.match(await run.pipe(source), { reason: 'stopped' })
  t.same([reads, returns], [0, 1])
})

t.test('a part that comes after the end is dropped, and so is the end of the source', async t => {
  const { rooms, claim } = await serveStreams(t)
  const run = await claim()
  let give!: (value: unknown) => void
  const source = { [Symbol.asyncIterator]: () => ({ next: () => new Promise<any>(resolve => { give = resolve }) }) }
  const piped = run.pipe(source)
  const end = await run.end('early')
  give({ done: false, value: 'late' })
  t.same(await piped, end)
  t.same((await rooms.history('run:1')).messages, [])
})

t.test('a source that never waits leaves the event loop to others', async t => {
  const { rooms, claim } = await serveStreams(t, {}, { history: { bytes: 100_000 } })
  for (const [name, options] of [['one', {}], ['two', { merge: (_a: number, b: number) => b }]] as const) {
    const turns = await turnsOf(async () => {
      const run = await claim(`run:${name}`)
      await run.pipe((async function * () { for (let n = 0; n < 5_000; n++) yield n })(), options)
    })
    t.ok(turns > 10, String(turns))
    t.ok((await rooms.history(`run:${name}`, { limit: 1_000 })).messages.length > 10)
  }
})

t.test('wrong arguments are refused, and the stream goes on', async t => {
  const { claim } = await serveStreams(t)
  const run = await claim()
  for (const source of [undefined, null, 'text', 7, {}, ['a']]) await t.rejects(run.pipe(source as never), { code: 'FST_ROOMS_INVALID_ARGUMENT', message: /"source" takes an async iterable or a ReadableStream/ })
  await t.rejects(run.pipe(words('a'), { merge: true as never }), { code: 'FST_ROOMS_INVALID_ARGUMENT', message: /"merge"/ })
  const piped = run.pipe(words('a b'))
  await t.rejects(run.pipe(words('c')), { code: 'FST_ROOMS_STREAM_TAKEN' })
  t.match(await piped, { reason: 'done' })
})
