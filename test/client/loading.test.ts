import { register } from 'node:module'
import t from 'tap'
import { connect, has, open, startFake, type Peer } from './kit.ts'

/** Fails to load the module of requests at first, and settles the next imports of it in another order than that of their calls. */
const hooks = `
let failures
let calls = 0
export function initialize (shared) { failures = new Int32Array(shared) }
export async function resolve (specifier, context, next) {
  if (specifier !== './http.ts' || !context.parentURL.endsWith('/client/index.ts')) return next(specifier, context)
  if (Atomics.load(failures, 0) > 0) {
    Atomics.sub(failures, 0, 1)
    throw new Error('no network')
  }
  if (calls++ === 0) await new Promise(resolve => setTimeout(resolve, 100))
  return next(specifier, context)
}`

t.test('the module of requests is loaded again after a failure, and calls of it keep their order', async t => {
  const failures = new SharedArrayBuffer(4)
  new Int32Array(failures)[0] = 2
  register(`data:text/javascript,${encodeURIComponent(hooks)}`, { data: failures })
  const errors: unknown[] = []
  const fake = await startFake(t)
  const room = connect(t, fake.host, { onerror: error => { errors.push(error) } }).room('chat:1', { presence: true })
  await open(room)
  const [peer] = fake.peers as [Peer]
  const answer = room.reload().catch((error: Error) => error.message)
  t.match(await answer, /no network/)
  peer.send({ type: 'presence', count: 1, state: [{ session: 'a' }] })
  peer.send({ type: 'presence', count: 2, join: [{ session: 'b' }] })
  await has(room, { count: 2 })
  t.same([room.getSnapshot().members, errors], [[{ session: 'a' }, { session: 'b' }], []])
})
