import t from 'tap'
import type { ControlOutcome } from '../../lib/feed/broker-link.ts'
import { HeldUsers } from '../../lib/fleet/held-users.ts'
import { maxPending, NodeRequests, type NodeRequest } from '../../lib/fleet/requests.ts'
import { turns } from '../helpers/turns.ts'

function create (outcome: ControlOutcome | Promise<ControlOutcome> = 'sent') {
  const sent: string[] = []
  const requests = new NodeRequests({ control: async (to, bytes) => { sent.push(`${to} ${bytes.toString()}`); return outcome } })
  const ask = (more: Partial<NodeRequest> = {}) => requests.ask({ node: 'b', session: 's', timeout: 10_000, encode: id => Buffer.from(`${id}`), late: isSent => new Error(`late, ${isSent}`), ...more })
  return { requests, sent, ask }
}

t.test('a request resolves with the answer of the node that was asked', async t => {
  const { requests, sent, ask } = create()
  const [one, two] = [ask(), ask()]
  t.same(sent, ['node:b 1', 'node:b 2'])
  requests.answered('c', { type: 'answer', id: 1, data: 'forged' })
  requests.answered('b', { type: 'answer', id: 7, data: 'unasked' })
  requests.answered('b', { type: 'answer', id: 2, data: 'two' })
  requests.answered('b', { type: 'answer', id: 1, data: 'one' })
  requests.answered('b', { type: 'answer', id: 1, data: 'again' })
  t.match([await one, await two], [{ data: 'one' }, { data: 'two' }])
  t.equal(requests.size, 0)
})

t.test('a node that is gone, a broker that does not answer, and an answer before the outcome', async t => {
  await t.rejects(create('gone').ask(), { code: 'FST_ROOMS_NO_SUCH_SESSION', message: /"s"/ })
  await t.rejects(create('unknown').ask(), { code: 'FST_ROOMS_BROKER_DOWN' })
  const early = create(new Promise(() => {}))
  const asked = early.ask()
  early.requests.answered('b', { type: 'answer', id: 1 })
  t.match(await asked, { id: 1 })
})

t.test('a request is late at its deadline, which says whether it was sent, and is given up once', async t => {
  const abandoned: number[] = []
  await t.rejects(create().ask({ timeout: 5, abandoned: id => { abandoned.push(id) } }), { message: 'late, true' })
  await t.rejects(create(new Promise(() => {})).ask({ timeout: 5 }), { message: 'late, false' })
  t.same(abandoned, [1])
})

t.test('an answer that waits to be read at the deadline counts', async t => {
  const { requests, ask } = create()
  const asked = ask({ timeout: 5 })
  // This timer fires in the same phase of the event loop, behind that of the request.
  setTimeout(() => { requests.answered('b', { type: 'answer', id: 1, data: 'just so' }) }, 5)
  const until = performance.now() + 20
  while (performance.now() < until);
  t.match(await asked, { data: 'just so' })
  await turns(2)
})

t.test('a signal ends a request, before it is sent or while it waits', async t => {
  const abandoned: number[] = []
  const stop = new AbortController()
  const { requests, sent, ask } = create()
  const asked = ask({ signal: stop.signal, abandoned: id => { abandoned.push(id) } })
  stop.abort(new Error('mine'))
  await t.rejects(asked, { message: 'mine' })
  await t.rejects(ask({ signal: stop.signal }), { message: 'mine' })
  t.same([abandoned, sent.length, requests.size], [[1], 1, 0])
})

t.test('requests are bounded in number, and end when the node closes', async t => {
  const { requests, ask } = create()
  const waiting = Promise.allSettled(Array.from({ length: maxPending }, () => ask()))
  await t.rejects(ask(), { code: 'FST_ROOMS_OVERLOADED' })
  t.equal(requests.size, maxPending)
  requests.close()
  t.ok((await waiting).every(result => result.status === 'rejected' && result.reason.code === 'FST_ROOMS_CLOSED'))
  await t.rejects(ask(), { code: 'FST_ROOMS_CLOSED' })
  t.equal(requests.size, 0)
})

t.test('bytes that cannot be made are the error of the request', async t => {
  const { requests, ask } = create()
  await t.rejects(ask({ encode: () => { throw new Error('too large') } }), { message: 'too large' })
  t.equal(requests.size, 0)
})

t.test('the broker is told of users once a turn, and not of one that came and went in it', async t => {
  const told: string[][][] = []
  const users = new HeldUsers({ hold: (add, remove) => { told.push([add, remove]) } })
  for (const user of ['ann', 'ann', 'ben', 'cleo']) users.came(user)
  users.left('ann')
  users.left('cleo')
  await turns(2)
  t.same(told.splice(0), [[['ann', 'ben'], []]])
  users.left('ben')
  users.came('ben')
  users.came('ann')
  await turns(2)
  t.same(told.splice(0), [], 'nothing has changed')
  users.left('ann')
  users.left('ben')
  users.came('dora')
  await turns(2)
  t.same(told, [[['dora'], ['ben']]])
})
