import t from 'tap'
import { PendingRequests } from '../../lib/session/requests.ts'
import type { MemberSession } from '../../lib/session/session.ts'
import { anyPayload } from '../../lib/topics/payload.ts'

/** A session with the fields that a request needs. */
function create (send: (frame: string) => void | Promise<void> = () => {}) {
  const frames: { ref: string, data: unknown }[] = []
  const session = {
    id: 's1',
    canBeAsked: true,
    definition: { message: anyPayload },
    privateText: (json: string, _from: undefined, _user: undefined, ref: string) => JSON.stringify({ ref, data: JSON.parse(json) }),
    sendPrivate: (frame: string) => {
      frames.push(JSON.parse(frame))
      return send(frame)
    }
  } as unknown as MemberSession
  return { requests: new PendingRequests(session), session, frames }
}

t.test('answers match their requests in any order', async t => {
  const { requests, frames } = create()
  const [one, two] = [requests.ask('one', 60_000), requests.ask('two', 60_000)]
  t.same(frames.map(({ data }) => data), ['one', 'two'])
  requests.answer(frames[1]!.ref, 2)
  requests.answer(frames[0]!.ref, 1)
  t.same(await Promise.all([one, two]), [1, 2])
})

t.test('a request is answered once, and an answer without a request is ignored', async t => {
  const { requests, frames } = create()
  const answer = requests.ask('one', 60_000)
  requests.answer('nonsense', 0)
  requests.answer(7, 0)
  requests.answer(frames[0]!.ref, 'first')
  requests.answer(frames[0]!.ref, 'second')
  t.equal(await answer, 'first')
  requests.answer(frames[0]!.ref, 'third')
})

t.test('a request that ends its session, because the peer does not read, fails once, without an unhandled rejection', async t => {
  const gone = new Error('closed')
  const unhandled: unknown[] = []
  const listener = (reason: unknown): void => { unhandled.push(reason) }
  process.on('unhandledRejection', listener)
  t.teardown(() => { process.removeListener('unhandledRejection', listener) })
  const { requests } = create(() => {
    requests.reject()
    throw gone
  })
  await t.rejects(requests.ask(1, 60_000), gone)
  await new Promise(resolve => setImmediate(resolve))
  t.same(unhandled, [])
})

t.test('a request that cannot be sent fails, and leaves no state behind', async t => {
  const gone = new Error('closed')
  for (const send of [() => { throw gone }, () => Promise.reject(gone)]) {
    const { requests } = create(send)
    await t.rejects(requests.ask(1, 60_000), gone)
    requests.reject()
  }
})

t.test('a request that waits to be sent ends with its session, its timeout or its signal', async t => {
  const never = (): Promise<void> => new Promise(() => {})
  const one = create(never)
  const dropped = one.requests.ask(1, 60_000)
  one.requests.reject()
  await t.rejects(dropped, { code: 'FST_ROOMS_SESSION_CLOSED' })
  await t.rejects(one.requests.ask(1, 1), { code: 'FST_ROOMS_ASK_TIMEOUT' })
  const controller = new AbortController()
  const aborted = one.requests.ask(1, 60_000, controller.signal)
  controller.abort(new Error('stop'))
  await t.rejects(aborted, { message: 'stop' })
})
