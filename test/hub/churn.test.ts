import t, { type Test } from 'tap'
import { memoryBroker } from '../../lib/brokers/memory.ts'
import type { Hooks } from '../../lib/hub/ports.ts'
import { Hub } from '../../lib/hub/hub.ts'
import type { ConnectRequest } from '../../lib/hub/hub-api.ts'
import { webSocketPeer } from '../../lib/transport/ws/listeners.ts'
import { LiveSocket, bareHooks, bareSettings, silent } from '../helpers/bare-hub.ts'
import type { Mode } from '../../types/index.ts'
import { fakeDefinition } from '../helpers/fakes.ts'

async function createHub (t: Test, hooks: Partial<Hooks> = {}) {
  const hub = new Hub(memoryBroker(), bareHooks(hooks), bareSettings({ limits: { pending: 4 }, drain: { timeout: 0, batch: 500, interval: 50, retry: { min: 100, max: 15_000 } } }), silent)
  await hub.start()
  t.teardown(() => hub.close())
  const arrive = (more: Partial<ConnectRequest> = {}, mode: Mode = 'rooms.v1'): LiveSocket => {
    const socket = new LiveSocket()
    hub.connect({ ...webSocketPeer(socket as never, {}, mode), address: '', addressKey: 'here', isForwarded: false, definition: fakeDefinition(), topic: 'news', user: 'ann', info: undefined, since: undefined, presence: false, onJoin: undefined, ...more })
    return socket
  }
  return { hub, arrive }
}

const turn = () => new Promise(resolve => setImmediate(resolve))
const sizes = (hub: Hub) => ({ sessions: hub.directory.size, users: [...hub.directory.ofUser('ann')].length > 0 ? 1 : 0, connections: hub.connections.size, rooms: hub.stats().topics, addresses: hub.admission.addresses })
const nothing = { sessions: 0, users: 0, connections: 0, rooms: 0, addresses: 0 }

t.test('the maps are empty after members have joined and left', async t => {
  const { hub, arrive } = await createHub(t)
  const never = new Promise(() => {})
  const sockets = [
    arrive(), arrive({ user: undefined, topic: 'other' }), arrive({}, 'rooms.raw'),
    arrive({ onJoin: () => never, topic: 'joining' }), arrive({ onJoin: () => false, topic: 'refused' })
  ]
  await turn()
  t.same(sizes(hub), { sessions: 4, users: 1, connections: 5, rooms: 3, addresses: 1 }, 'a refused join counts as a connection until it has closed')
  for (const socket of sockets) socket.gone()
  t.same(sizes(hub), nothing)
  for (const socket of sockets) socket.gone()
  t.same(sizes(hub), nothing)
})

t.test('a connection that closes while its room attaches leaves no state behind', async t => {
  const { hub, arrive } = await createHub(t)
  let asked = false
  const socket = arrive({ onJoin: () => { asked = true } })
  socket.gone()
  t.same(sizes(hub), nothing)
  await turn()
  t.notOk(asked)
  t.same(sizes(hub), nothing)
})

t.test('a connection that closes while onJoin runs leaves no state behind, and gets no hello', async t => {
  const { hub, arrive } = await createHub(t)
  let open = (_value: unknown): void => {}
  const socket = arrive({ onJoin: () => new Promise(resolve => { open = resolve }) })
  await turn()
  socket.gone()
  open(true)
  await turn()
  t.same(socket.sent, [])
  t.same(sizes(hub), nothing)
})

t.test('a room that empties and fills in one turn is a new room with a new epoch', async t => {
  const { hub, arrive } = await createHub(t)
  const first = arrive()
  await turn()
  first.gone()
  const second = arrive()
  await turn()
  const [one, two] = [first, second].map(socket => JSON.parse(socket.sent[0]!).id.split('-')[0])
  t.not(one, two)
  t.equal(hub.stats().topics, 1)
})

t.test('frames before hello are queued; at the bound reading pauses, and resumes after hello', async t => {
  const { hub, arrive } = await createHub(t)
  let open = (_value: unknown): void => {}
  const socket = arrive({ onJoin: () => new Promise(resolve => { open = resolve }) })
  await turn()
  for (let n = 0; n < 3; n++) socket.receive({ type: 'message', data: n })
  t.notOk(socket.isPaused)
  for (let n = 3; n < 6; n++) socket.receive({ type: 'message', data: n })
  t.ok(socket.isPaused)
  t.same(socket.sent, [])
  t.equal(hub.counters.received, 0)
  open(true)
  await turn()
  t.notOk(socket.isPaused)
  await turn()
  const frames = socket.sent.map(text => JSON.parse(text))
  t.equal(frames[0].type, 'hello')
  t.same(frames.filter(({ type }) => type === 'message').map(({ data }) => data), [0, 1, 2, 3, 4, 5])
})

t.test('frames after the end are ignored', async t => {
  const { hub, arrive } = await createHub(t)
  const socket = arrive()
  await turn()
  socket.gone()
  socket.receive({ type: 'message', data: 1 })
  t.match(hub.counters, { received: 0, broadcasts: 0 })
})

t.test('frames after one that ends the member are ignored, also among those queued before hello', async t => {
  const { hub, arrive } = await createHub(t, { onMessage: new Map([['*', session => { session.close() }]]) })
  let open = (_value: unknown): void => {}
  const socket = arrive({ onJoin: () => new Promise(resolve => { open = resolve }) })
  await turn()
  for (let n = 0; n < 3; n++) socket.receive({ type: 'message', data: n })
  open(true)
  await turn()
  t.equal(hub.counters.received, 1)
  t.same(socket.closes, [{ code: 1000, reason: 'normal' }])
})

t.test('joins and leaves of a user in one turn are told to the hooks in order', async t => {
  const calls: string[] = []
  const { hub, arrive } = await createHub(t, {
    onUserJoin: ({ user }) => { calls.push(`${user} joins`) },
    onLeave: ({ user }) => { calls.push(`onLeave ${user}`) },
    onUserLeave: ({ user }, { code }) => { calls.push(`${user} leaves ${code}`) }
  })
  for (const grace of [0, 60_000]) {
    const definition = fakeDefinition({ grace })
    const topic = `grace-${grace}`
    arrive({ user: 'keeper', definition, topic })
    await turn()
    calls.length = 0
    arrive({ definition, topic }).gone()
    const [first, second] = [arrive({ definition, topic }), arrive({ definition, topic })]
    first.gone()
    second.gone(1001)
    t.same(calls, grace === 0
      ? ['ann joins', 'onLeave ann', 'ann leaves 1006', 'ann joins', 'onLeave ann', 'onLeave ann', 'ann leaves 1001']
      : ['ann joins', 'onLeave ann', 'onLeave ann', 'onLeave ann'])
  }
  t.equal(hub.users.held('grace-60000').size, 2, 'one of three leaves was undone')
})

t.test('a member that cannot take its first frames has not joined, and its user neither joins nor leaves', async t => {
  const calls: string[] = []
  const { hub, arrive } = await createHub(t, {
    onUserJoin: ({ user }) => { calls.push(`${user} joins`) },
    onLeave: ({ user }) => { calls.push(`onLeave ${user}`) },
    onUserLeave: ({ user }) => { calls.push(`${user} leaves`) }
  })
  arrive({ user: undefined, topic: 'busy' })
  for (const presence of [false, true]) {
    for (const grace of [0, 60_000]) {
      // Hello alone exceeds the bound, or the snapshot does.
      const definition = fakeDefinition({ grace, slow: { policy: 'close', bytes: presence ? 350 : 1 } })
      hub.publish(definition, 'busy', '1', {}) // so that the turn ends before onJoin
      const socket = arrive({ definition, topic: `${grace}-${presence}`, presence, info: 'x'.repeat(300), onJoin: turn })
      socket.bufferedAmount = 1
      await turn()
      await turn()
      t.equal(socket.sent.length, presence ? 1 : 0)
    }
  }
  t.equal(hub.counters.slow, 4)
  t.same(calls, Array.from({ length: 4 }, () => 'onLeave ann'))
  t.equal(hub.users.held('60000-false').size, 0, 'no frame has named the member')
  await hub.drain()
  t.same([...new Set(calls)], ['onLeave ann', 'onLeave undefined'])
})
