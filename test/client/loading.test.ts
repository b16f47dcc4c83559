import { register } from 'node:module'
import t from 'tap'
import { connect, has, open, startFake, type Peer } from './kit.ts'

/** Fails to load the module of requests at first, and settles the next imports of it in another order than that of their calls. */
const hooks = `
let isDown
let calls = 0
export function initialize (shared) { isDown = new Int32Array(shared) }
export async function resolve (specifier, context, next) {
  if (specifier !== './http.ts' || !context.parentURL.endsWith('/client/index.ts')) return next(specifier, context)
  if (Atomics.load(isDown, 0) === 1) throw new Error('no network')
  if (calls++ === 0) await new Promise(resolve => setTimeout(resolve, 100))
  return next(specifier, context)
}`

t.test('the module of requests is loaded again after a failure, and calls of it keep their order', async t => {
  const shared = new SharedArrayBuffer(4)
  const isDown = new Int32Array(shared)
  isDown[0] = 1
  register(`data:text/javascript,${encodeURIComponent(hooks)}`, { data: shared })
  const errors: unknown[] = []
  const fake = await startFake(t)
  const room = connect(t, fake.host, { onerror: error => { errors.push(error) } }).room('chat:1', { presence: true })
  await open(room)
  const [peer] = fake.peers as [Peer]
  const answer = room.reload().catch((error: Error) => error.message)
  t.match(await answer, /no network/)
  Atomics.store(isDown, 0, 0)
  peer.send({ type: 'presence', count: 1, state: [{ session: 'a' }] })
  peer.send({ type: 'presence', count: 2, join: [{ session: 'b' }] })
  await has(room, { count: 2 })
  t.same([room.getSnapshot().members, errors], [[{ session: 'a' }, { session: 'b' }], []])
})
