import t, { type Test } from 'tap'
import { Mids, hostKey, memberKey, type Accept, type Answer } from '../../lib/feed/mids.ts'
import { at } from '../helpers/fakes.ts'
import { random } from '../helpers/random.ts'

const minute = 60_000
const turn = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

function create (limit = 100) {
  const counters = { duplicates: 0 }
  const mids = new Mids(limit, counters)
  /** Accepts a message at once. Returns `accepted`, or the answer to the first one with its key. */
  const send = (key: string, id = `e-${key}`, data?: unknown): string | Answer | undefined => mids.once<string | Answer | undefined>(key, accept => {
    accept(id, 1, data)
    return 'accepted'
  }, answer => answer) as string | Answer | undefined
  return { mids, counters, send }
}

/** A message whose handling the test decides about. `result` is `first`, the id of the first answer, `closed`, or the code of an error. */
function begin (mids: Mids, key: string) {
  let accept: Accept | undefined
  let settle!: (error?: Error) => void
  const state = { handled: false, result: undefined as string | undefined }
  const result = mids.once<string>(key, given => {
    accept = given
    state.handled = true
    return new Promise((resolve, reject) => { settle = error => { if (error === undefined) resolve('first'); else reject(error) } })
  }, answer => answer?.id ?? 'closed')
  Promise.resolve(result).then(text => { state.result = text }, (error: Error) => { state.result = error.message })
  return { state, accept: (id: string) => { accept!(id, 1); settle() }, refuse: () => { settle(new Error('refused')) }, pass: (id: string) => { accept!(id, 1) } }
}

t.test('the second message with a key gets the answer to the first one', async t => {
  const { send, counters } = create()
  t.equal(send('a', 'e-1', { n: [1] }), 'accepted')
  t.match(send('a', 'e-2'), { id: 'e-1', local: 1, data: { n: [1] } })
  t.match(send('a', 'e-3'), { id: 'e-1' })
  t.equal(send('b'), 'accepted')
  t.equal(counters.duplicates, 2)
})

t.test('data is as it was when the message was accepted', async t => {
  const { send, mids } = create()
  const data = { n: 1, when: new Date(0), gone: undefined }
  send('a', 'e-1', data)
  data.n = 2
  t.same((send('a') as Answer).data, { n: 1, when: '1970-01-01T00:00:00.000Z' })
  send('none')
  t.equal((send('none') as Answer).data, undefined)
  send('null', 'e-2', null)
  t.equal((send('null') as Answer).data, null)
  t.throws(() => send('big', 'e-3', 1n), { message: /BigInt/ })
  t.equal(send('big'), 'accepted', 'a message whose answer cannot be written counts as failed')
  t.equal(mids.size, 4)
})

t.test('an answer is remembered for 5 minutes, whether the old ones are swept or not', async t => {
  for (const sweeps of [true, false]) {
    const { mids, send } = create()
    at(0, () => send('a'))
    at(minute, () => send('b'))
    if (sweeps) mids.sweep(5 * minute - 1)
    t.match(at(5 * minute - 1, () => send('a')), { id: 'e-a' }, 'a repetition does not prolong it')
    if (sweeps) mids.sweep(5 * minute)
    t.equal(mids.size, sweeps ? 1 : 2)
    t.equal(at(5 * minute, () => send('a', 'e-new')), 'accepted')
    t.match(at(6 * minute - 1, () => send('b')), { id: 'e-b' })
    t.match(at(10 * minute - 1, () => send('a')), { id: 'e-new' })
    mids.sweep(6 * minute)
    t.equal(mids.size, 1)
    mids.sweep(10 * minute)
    t.equal(mids.size, 0)
  }
})

t.test('over the limit the oldest answers are forgotten, and large ones count for several', async t => {
  const { mids, send } = create(4)
  for (const key of ['a', 'b', 'c', 'd', 'e']) send(key)
  t.equal(mids.size, 4)
  t.match(send('b'), { id: 'e-b' })
  send('large', 'e-1', 'x'.repeat(254)) // 256 characters of JSON
  t.equal(mids.size, 3, 'it counts for two')
  t.match(send('d'), { id: 'e-d' })
  send('small', 'e-2', 'x'.repeat(253))
  t.equal(mids.size, 3, 'it counts for one')
  t.match(send('large'), { id: 'e-1' })
  send('huge', 'e-3', 'x'.repeat(2_000))
  t.equal(mids.size, 0, 'an answer over the limit is not remembered, and takes the others with it')
  for (const key of ['a', 'b', 'c', 'd', 'e']) send(key)
  t.equal(mids.size, 4, 'the count is right afterwards')
})

t.test('a message that is not accepted is forgotten, whether it returns, throws or rejects', async t => {
  const { mids, send } = create()
  t.equal(mids.once('a', () => 'refused', () => 'repeated'), 'refused')
  t.throws(() => mids.once('a', () => { throw new Error('no') }, () => 'repeated'), { message: 'no' })
  await t.rejects(mids.once('a', async () => { throw new Error('no') }, () => 'repeated') as Promise<string>, { message: 'no' })
  t.equal(await mids.once('a', async () => 'refused', () => 'repeated'), 'refused')
  t.equal(send('a'), 'accepted')
})

t.test('messages wait for the first one, and get its answer', async t => {
  const { mids, counters } = create()
  const [first, second, third] = [begin(mids, 'a'), begin(mids, 'a'), begin(mids, 'a')]
  await turn()
  t.same([second.state, third.state], [{ handled: false, result: undefined }, { handled: false, result: undefined }])
  first.accept('e-1')
  await turn()
  t.same([first, second, third].map(({ state }) => state), [{ handled: true, result: 'first' }, { handled: false, result: 'e-1' }, { handled: false, result: 'e-1' }])
  t.equal(counters.duplicates, 2)
})

t.test('an answer counts from the moment that it is accepted, also if the call goes on', async t => {
  const { mids, send } = create()
  const [first, second] = [begin(mids, 'a'), begin(mids, 'a')]
  first.pass('e-1')
  await turn()
  t.equal(second.state.result, 'e-1')
  t.match(send('a'), { id: 'e-1' })
  first.refuse()
  await turn()
  t.match(send('a'), { id: 'e-1' }, 'an error after that does not take it back')
})

t.test('after a first one that was refused, the one that has waited longest is handled, and the others wait for that', async t => {
  const { mids } = create()
  const messages = [begin(mids, 'a'), begin(mids, 'a'), begin(mids, 'a'), begin(mids, 'a')]
  const [first, second, third, fourth] = messages as [ReturnType<typeof begin>, ReturnType<typeof begin>, ReturnType<typeof begin>, ReturnType<typeof begin>]
  first.refuse()
  await turn()
  t.same(messages.map(({ state }) => state.handled), [true, true, false, false])
  const late = begin(mids, 'a')
  second.refuse()
  await turn()
  t.same(messages.map(({ state }) => state.handled), [true, true, true, false])
  third.accept('e-3')
  await turn()
  t.same([...messages, late].map(({ state }) => state.result), ['refused', 'refused', 'first', 'e-3', 'e-3'])
  t.notOk(fourth.state.handled || late.state.handled)
})

t.test('a message that arrives between the refusal of the first and the handling of the second waits', async t => {
  const { mids } = create()
  const refused: (() => void)[] = []
  const result = mids.once<string>('a', () => new Promise((_resolve, reject) => { refused.push(() => { reject(new Error('no')) }) }), () => '')
  const second = begin(mids, 'a')
  let third: ReturnType<typeof begin> | undefined
  const handled = (result as Promise<string>).catch(() => { third = begin(mids, 'a') })
  refused[0]!()
  await handled
  await turn()
  t.same([second.state.handled, third!.state.handled], [true, false])
  second.accept('e-2')
  await turn()
  t.equal(third!.state.result, 'e-2')
})

t.test('more than 100 messages do not wait for one', async t => {
  const { mids } = create()
  const first = begin(mids, 'a')
  const waiting = Array.from({ length: 100 }, () => begin(mids, 'a'))
  t.throws(() => begin(mids, 'a'), { code: 'FST_ROOMS_OVERLOADED', statusCode: 503 })
  begin(mids, 'b').accept('e-b')
  first.refuse()
  await turn()
  t.notOk(begin(mids, 'a').state.handled, 'one has left, and another can wait')
  waiting[0]!.accept('e-1')
  await turn()
  t.ok(waiting.slice(1).every(({ state }) => state.result === 'e-1'))
})

t.test('a message that is not decided within 5 minutes is forgotten, and the next one is handled', async t => {
  const { mids } = create()
  const [first, second] = at(0, () => [begin(mids, 'a'), begin(mids, 'a')] as const)
  const young = at(minute, () => begin(mids, 'b'))
  const alone = at(minute, () => begin(mids, 'c'))
  mids.sweep(5 * minute - 1)
  await turn()
  t.notOk(second.state.handled)
  mids.sweep(5 * minute)
  await turn()
  t.ok(second.state.handled)
  const third = at(5 * minute, () => begin(mids, 'a'))
  first.accept('e-late')
  await turn()
  t.notOk(third.state.handled || third.state.result, 'the answer of the first one comes too late')
  mids.sweep(6 * minute)
  const again = at(6 * minute, () => begin(mids, 'b'))
  t.ok(again.state.handled, 'nothing waits for a message that was forgotten')
  again.accept('e-again')
  young.accept('e-young')
  alone.accept('e-alone')
  second.accept('e-2')
  await turn()
  t.equal(third.state.result, 'e-2')
  t.equal(await mids.once('b', () => '', answer => answer!.id!), 'e-again')
  t.equal(mids.size, 2)
})

t.test('at the end of a drain no message waits, and accepted ones are still answered', async t => {
  const { mids, send } = create()
  const start = performance.now()
  send('done')
  const [first, second] = [begin(mids, 'a'), begin(mids, 'a')]
  mids.drain(start + 1_000)
  mids.sweep(start + 999)
  await turn()
  t.equal(second.state.result, undefined)
  t.equal(begin(mids, 'a').state.result, undefined, 'until then messages wait')
  mids.sweep(start + 1_000)
  await turn()
  t.same(second.state, { handled: false, result: 'closed' })
  const late = at(start + 1_000, () => begin(mids, 'a'))
  t.match(at(start + 1_000, () => send('done')), { id: 'e-done' })
  t.equal(at(start + 1_000, () => send('new')), 'accepted')
  await turn()
  t.same(late.state, { handled: false, result: 'closed' })
  first.accept('e-1')
  await turn()
  t.match(send('a'), { id: 'e-1' })
})

t.test('a closed node forgets everything, and lets no message wait', async t => {
  const { mids, send } = create()
  send('done')
  const [first, second] = [begin(mids, 'a'), begin(mids, 'a')]
  mids.close()
  await turn()
  t.same(second.state, { handled: false, result: 'closed' })
  t.equal(mids.size, 0)
  first.accept('e-1')
  await turn()
  t.equal(first.state.result, 'first')
})

t.test('keys of different users, topics and kinds never meet', async t => {
  const users = [undefined, 'a', 'ab', 'a b', '1', '1 a', '', ' ', 'u1 a', '😀']
  const mids = ['x', ' x', 'b', 'a x', '1 ax', 'h', '😀x']
  const keys = ['news', 'news:a', 'u1'].flatMap(topic => mids.flatMap(mid => [hostKey(topic, mid), ...users.map(user => memberKey(topic, user, mid))]))
  t.equal(new Set(keys).size, keys.length)
})

/** Sends messages with few keys, which are accepted, refused or left open at random. Returns how many were accepted by key, and the results by key. */
async function play (t: Test, seed: number, once: Mids['once']) {
  const chance = random(seed)
  const accepted = new Map<string, string[]>()
  const results = new Map<string, string[]>()
  const open: (() => void)[] = []
  const calls: Promise<unknown>[] = []
  for (let n = 0; n < 60; n++) {
    const key = `k${Math.floor(chance() * 5)}`
    const id = `e-${n}`
    const fate = chance()
    const decide = (accept: Accept): string => {
      if (fate < 0.5) throw new Error('refused')
      accept(id, 1)
      accepted.set(key, [...accepted.get(key) ?? [], id])
      return id
    }
    const call = async (): Promise<string> => once<string>(key, accept => chance() < 0.3 ? decide(accept) : new Promise<void>(resolve => { open.push(resolve) }).then(() => decide(accept)), answer => answer!.id!)
    calls.push(call().then(result => { results.set(key, [...results.get(key) ?? [], result]) }, (error: Error) => { if (error.message !== 'refused') t.fail(error.message) }))
    if (chance() < 0.5) open.splice(Math.floor(chance() * open.length), 1)[0]?.()
    if (chance() < 0.3) await turn()
  }
  let unanswered = calls.length
  for (const call of calls) call.then(() => { unanswered-- })
  for (let turns = 0; turns < 200; turns++) {
    open.shift()?.()
    await turn()
  }
  t.equal(unanswered, 0, `each message is answered (seed ${seed})`)
  return { accepted, results }
}

t.test('in any order of arrivals and decisions, one message of each key is accepted, and all accepted ones have its id', async t => {
  let withoutMids = 0
  for (let seed = 1; seed <= 200; seed++) {
    const { mids } = create()
    const { accepted, results } = await play(t, seed, mids.once.bind(mids))
    for (const [key, ids] of accepted) {
      if (ids.length !== 1) t.fail(`${key} was accepted as ${ids.join()} (seed ${seed})`)
      if (results.get(key)!.some(result => result !== ids[0])) t.fail(`${key}: ${results.get(key)!.join()} (seed ${seed})`)
    }
    const twin = await play(t, seed, (_key, first) => first(() => {}))
    withoutMids += [...twin.accepted.values()].filter(ids => ids.length > 1).length
  }
  t.ok(withoutMids > 200, 'without it messages are accepted several times')
})
