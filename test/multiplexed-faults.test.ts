import t, { type Test } from 'tap'
import { connect, createRooms, listen, until, type AnyOptions, type Client } from './helpers/app.ts'

// Faults of connections of several topics that the model, the fuzzer and the limits have found, or watch for.

type Rooms = { stats (): any, kick (selector: object, options?: object): Promise<number>, broadcast (topic: string, data: unknown): Promise<any> }

async function open (t: Test, options: AnyOptions = {}): Promise<{ client: Client, rooms: Rooms, url: string }> {
  const app = await createRooms(t, { topics: { '*': { publish: true, presence: true } }, ...options })
  const url = `${await listen(app)}/rooms`
  return { client: await opened(t, url), rooms: app.rooms as never, url }
}

/** A client that was sent the first hello. */
async function opened (t: Test, url: string): Promise<Client> {
  const client = await connect(t, url)
  await client.next('hello')
  return client
}

/** Joins a topic. */
async function joined (client: Client, topic: string): Promise<void> {
  client.send({ type: 'join', topic, ref: `join ${topic}` })
  await client.next('hello')
}

t.test('frames of a peer that has left their topic meanwhile are answered, and it is sent no presence', async t => {
  const proceed: (() => void)[] = []
  const errors: any[] = []
  const { client } = await open(t, {
    onError: error => { errors.push(error) },
    onMessage: {
      '*': async (session, payload) => {
        await new Promise<void>(resolve => { proceed.push(resolve) })
        if (payload === 'send') await session.send('too late')
      }
    }
  })
  await joined(client, 'news')
  for (const [ref, frame] of [{ type: 'message', data: 'wait' }, { type: 'presence', info: 1 }, { type: 'presence' }, { type: 'message', data: 'send' }, { type: 'message', data: 'over' }].entries()) client.send({ ...frame, topic: 'news', ref })
  t.match(await client.ask({ type: 'leave', topic: 'news' }), { ok: true })
  const before = client.received.length
  await until(() => {
    proceed.shift()?.()
    return client.received.length >= before + 5
  })
  t.match(await client.ask({ type: 'ping' }), { ok: true })
  t.match(client.received.slice(before, -1).map(text => JSON.parse(text)), [
    { type: 'ack', topic: 'news', ref: 0, ok: true },
    { type: 'ack', topic: 'news', ref: 1, ok: true },
    { type: 'ack', topic: 'news', ref: 2, ok: true },
    { type: 'ack', topic: 'news', ref: 3, ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' } },
    { type: 'ack', topic: 'news', ref: 4, ok: true }
  ])
  t.same(errors, [])
})

t.test('a ping over the rate is answered without a topic, whatever stands there', async t => {
  const { client } = await open(t, { limits: { messages: 4, per: 60_000 } })
  for (const topic of ['news', 1, {}, null, 'a"b', []]) client.send({ type: 'ping', topic, ref: 1 })
  for (const ok of [true, true, true, true, false, false]) {
    const ack = await client.next('ack')
    t.same([ack.ok, 'topic' in ack], [ok, false])
  }
})

t.test('answers of one topic are in the order of its frames, whether its session or the connection makes them', async t => {
  const { client } = await open(t, { topics: { '*': { publish: true } }, limits: { messages: 8, per: 60_000 } })
  await joined(client, 'news')
  client.socket.pause()
  for (let ref = 1; ref <= 10; ref++) client.send({ type: ref === 3 ? 'join' : 'message', topic: 'news', data: ref, ref })
  client.socket.resume()
  const answers = []
  while (answers.length < 10) {
    const { ref, ok } = await client.next('ack')
    answers.push(`${ref} ${ok}`)
  }
  t.same(answers, ['1 true', '2 true', '3 false', '4 true', '5 true', '6 true', '7 true', '8 false', '9 false', '10 false'])
})

t.test('onInvalid decides about frames over the largest limit of all topics', async t => {
  const large = { type: 'message', topic: 'news', data: 'x'.repeat(70_000) }
  const { client, rooms } = await open(t, { onInvalid: 'ignore' })
  await joined(client, 'news')
  client.send(large)
  t.match(await client.ask({ type: 'ping' }, 'only'), { ref: 'only' })
  t.notOk(client.received.some(text => text.includes('"error"')))
  t.match(rooms.stats(), { invalid: 1, refusals: { payload: 1 } })
  const strict = await open(t, { onInvalid: 'close' })
  await joined(strict.client, 'news')
  strict.client.send(large)
  t.match(await strict.client.closed, { code: 1009 })
  t.match(strict.client.received.slice(-2).map(text => JSON.parse(text)), [{ type: 'bye', topic: 'news', code: 1009 }, { type: 'bye', code: 1009 }])
})
