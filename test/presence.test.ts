import { Type } from '@sinclair/typebox'
import t, { type Test } from 'tap'
import { connect, createRooms, join, listen, until, type AnyOptions, type Client } from './helpers/app.ts'

async function serve (t: Test, options: AnyOptions = {}) {
  const errors: Error[] = []
  const app = await createRooms(t, {
    identify: request => typeof request.headers['x-user'] === 'string' ? { user: request.headers['x-user'], info: { name: request.headers['x-user'] } } : null,
    onError: error => { errors.push(error) },
    ...options
  })
  return { app, rooms: app.rooms as any, url: await listen(app), errors }
}

const as = (user: string) => ({ headers: { 'x-user': user } })
const presenceOf = (client: Client) => client.received.map(text => JSON.parse(text)).filter(({ type }) => type === 'presence')

/** The list that a client keeps by the rules of docs/protocol.md. */
function listOf (client: Client): Map<string, any> | null {
  let list: Map<string, any> | null = null
  for (const { state, join, leave } of presenceOf(client)) {
    if (state !== undefined) list = new Map(state.map((member: any) => [member.session, member]))
    else if (join === undefined && leave === undefined) list = null
    for (const member of join ?? []) list?.set(member.session, member)
    for (const { session } of leave ?? []) list?.delete(session)
  }
  return list
}

t.test('with presence=1 a snapshot follows hello, and it includes the new member', async t => {
  const { url } = await serve(t)
  const ann = await join(t, `${url}/rooms/chat?presence=1`, as('ann'))
  t.same(await ann.next(), { type: 'presence', count: 1, state: [{ session: ann.hello.session, user: 'ann', info: { name: 'ann' } }] })
  ann.send({ type: 'presence' })
  t.match(await ann.next('presence'), { count: 1 })
  const bob = await join(t, `${url}/rooms/chat?presence=1`, as('bob'))
  t.match(await bob.next(), { type: 'presence', count: 2, state: [{ user: 'ann' }, { user: 'bob' }] })
})

t.test('without presence=1 a member gets no snapshot, only differences', async t => {
  const { url } = await serve(t)
  const anonymous = await join(t, `${url}/rooms/chat`)
  t.same(await anonymous.next(), { type: 'presence', count: 1, join: [{ session: anonymous.hello.session }] }, 'a member gets its own join, like all others')
})

t.test('joins and leaves are announced to all members', async t => {
  const { url } = await serve(t)
  const ann = await join(t, `${url}/rooms/chat?presence=1`, as('ann'))
  const bob = await join(t, `${url}/rooms/chat?presence=1`, as('bob'))
  await until(() => listOf(ann)?.size === 2 && listOf(bob)?.size === 2)
  const { session } = bob.hello
  await bob.close()
  await until(() => listOf(ann)?.size === 1)
  t.same(presenceOf(ann).at(-1), { type: 'presence', count: 1, leave: [{ session }] })
  t.same([...listOf(ann)!.values()].map(({ user }) => user), ['ann'])
})

t.test('a join and a leave in one window cancel out, and presence frames keep their minimum interval', async t => {
  const { rooms, url } = await serve(t)
  const ann = await join(t, `${url}/rooms/chat?presence=1`, as('ann'))
  const start = performance.now()
  const seen = new Set<string>()
  for (let i = 0; i < 10; i++) {
    const guest = await join(t, `${url}/rooms/chat`, as(`guest${i}`))
    seen.add(guest.hello.session)
    await guest.close()
  }
  await until(async () => await rooms.count('chat') === 1)
  const last = await join(t, `${url}/rooms/chat`, as('last'))
  await until(() => listOf(ann)?.has(last.hello.session) === true)
  t.same([...listOf(ann)!.values()].map(({ user }) => user).sort(), ['ann', 'last'])
  const left = presenceOf(ann).flatMap(({ leave = [] }) => leave)
  const joined = presenceOf(ann).flatMap(({ join = [] }) => join).filter(({ session }) => seen.has(session))
  t.equal(left.length, joined.length, 'each announced join is followed by an announced leave, and no other leave is announced')
  // The number of received frames depends on the network; the number of sent frames does not. One was the snapshot, one was sent at once.
  const frames = presenceOf(ann).length
  t.ok(frames <= (performance.now() - start) / 100 + 3, `${frames} frames`)
})

t.test('all members that ask for a snapshot get the same bytes', async t => {
  const { url } = await serve(t)
  const [ann, bob] = [await join(t, `${url}/rooms/chat`, as('ann')), await join(t, `${url}/rooms/chat`, as('bob'))]
  for (const client of [ann, bob]) t.match(await client.ask({ type: 'presence' }, 'snapshot'), { ok: true })
  const texts = [ann, bob].map(client => client.received.find(text => text.includes('"state"')))
  t.ok(texts[0])
  t.equal(texts[1], texts[0])
})

t.test('a member sets its info, and all members get it', async t => {
  const { rooms, url } = await serve(t)
  const [ann, bob] = [await join(t, `${url}/rooms/chat?presence=1`, as('ann')), await join(t, `${url}/rooms/chat?presence=1`, as('bob'))]
  t.same(await ann.ask({ type: 'presence', info: { away: true } }, 7), { type: 'ack', ref: 7, ok: true })
  for (const client of [ann, bob]) await until(() => listOf(client)?.get(ann.hello.session)?.info.away === true)
  t.same(presenceOf(bob).at(-1).join.at(-1), { session: ann.hello.session, user: 'ann', info: { away: true } })
  t.same((await rooms.members('chat'))[0].info, { away: true })
  ann.send({ type: 'presence', info: null })
  await until(() => listOf(bob)?.get(ann.hello.session)?.info === null)
})

t.test('info is validated, bounded and authorized', async t => {
  const { rooms, url, errors } = await serve(t, {
    topics: { chat: { publish: true, presence: Type.Object({ name: Type.String() }) }, big: { presence: true }, news: { publish: true } },
    limits: { info: 20 },
    authorize: (context: any) => context.action !== 'presence' || context.payload.name !== 'root'
  })
  const ann = await join(t, `${url}/rooms/chat`, as('ann'))
  t.match(await ann.ask({ type: 'presence', info: { name: 1 } }), { ok: false, error: { code: 'FST_ROOMS_INVALID_PAYLOAD', details: [{ path: '/name' }] } })
  t.match(await ann.ask({ type: 'presence', info: { name: 'x'.repeat(10) } }), { ok: false, error: { code: 'FST_ROOMS_INFO_TOO_LARGE', message: 'presence info of 21 bytes is over the limit of 20' } })
  t.match(await ann.ask({ type: 'presence', info: { name: 'ü'.repeat(5) } }), { ok: false, error: { code: 'FST_ROOMS_INFO_TOO_LARGE' } }, 'the limit counts bytes, not characters')
  t.match(await ann.ask({ type: 'presence', info: { name: 'root' } }), { ok: false, error: { code: 'FST_ROOMS_FORBIDDEN', message: 'not allowed: presence' } })
  t.same((await rooms.members('chat'))[0].info, { name: 'ann' }, 'refused info changes nothing')
  t.match(await ann.ask({ type: 'presence', info: { name: 'x'.repeat(9) } }), { ok: true })
  const other = await join(t, `${url}/rooms/news?presence=1`)
  for (const frame of [{ type: 'presence' }, { type: 'presence', info: 1 }]) {
    t.match(await other.ask(frame), { ok: false, error: { code: 'FST_ROOMS_NO_PRESENCE', message: 'topic "news" has no presence' } })
  }
  t.same(presenceOf(other), [], 'a topic without presence sends no presence frame')
  t.same(errors, [])
})

t.test('info that is authorized after its member has left changes nothing', async t => {
  let answer: ((allowed: boolean) => void) | undefined
  const { rooms, url } = await serve(t, {
    authorize: (context: any) => context.action !== 'presence' || new Promise<boolean>(resolve => { answer = resolve })
  })
  const watcher = await join(t, `${url}/rooms/chat?presence=1`)
  const ann = await join(t, `${url}/rooms/chat`, as('ann'))
  const { session } = ann.hello
  ann.send({ type: 'presence', info: 'late' })
  await until(() => answer !== undefined)
  await ann.close()
  await until(async () => await rooms.count('chat') === 1)
  answer!(true)
  await until(() => listOf(watcher)?.has(session) === false)
  const guest = await join(t, `${url}/rooms/chat`)
  await until(() => listOf(watcher)?.has(guest.hello.session) === true)
  t.notOk(watcher.received.some(text => text.includes('late')))
})

t.test('raw members are counted, and get no presence frame', async t => {
  const { rooms, url } = await serve(t)
  const raw = await connect(t, `${url}/rooms/chat?presence=1`, 'rooms.raw', as('raw'))
  await until(async () => await rooms.count('chat') === 1)
  const ann = await join(t, `${url}/rooms/chat?presence=1`, as('ann'))
  t.match(await ann.next('presence'), { count: 2, state: [{ user: 'raw' }, { user: 'ann' }] })
  await until(() => presenceOf(ann).length >= 2)
  t.same(raw.received, [])
})

t.test('above 200 members presence has counts only, and below 150 members get one new state', async t => {
  const { rooms, url } = await serve(t)
  const watcher = await join(t, `${url}/rooms/chat?presence=1`, as('watcher'))
  const crowd: Client[] = []
  while (crowd.length < 210) {
    crowd.push(...await Promise.all(Array.from({ length: 30 }, () => connect(t, `${url}/rooms/chat`))))
  }
  await until(async () => await rooms.count('chat') === 211)
  await until(() => presenceOf(watcher).at(-1).count === 211)
  t.same(presenceOf(watcher).at(-1), { type: 'presence', count: 211 })
  t.equal(listOf(watcher), null)
  watcher.send({ type: 'presence', ref: 'snapshot' })
  await until(() => watcher.received.some(text => text.includes('"snapshot"')))
  t.same(presenceOf(watcher).at(-1), { type: 'presence', count: 211 })
  for (const client of crowd.splice(0, 70)) client.socket.terminate()
  await until(async () => await rooms.count('chat') === 141)
  await until(() => listOf(watcher)?.size === 141)
  t.same(presenceOf(watcher).at(-1).count, 141)
  const [one] = crowd
  await until(() => listOf(one!)?.size === 141)
  await one!.close()
  await until(() => listOf(watcher)?.size === 140)
  t.same(Object.keys(presenceOf(watcher).at(-1)), ['type', 'count', 'leave'])
})

t.test('presence info that is nested too deeply is a fault of the member, and is sent to no member', async t => {
  const errors: Error[] = []
  const app = await createRooms(t, { limits: { info: 65_000 }, onError: error => { errors.push(error) } })
  const ann = await join(t, `${await listen(app)}/rooms/chat`)
  const refused: number[] = []
  for (let depth = 250; depth <= 32_000; depth += 250) {
    ann.send(`{"type":"presence","ref":${depth},"info":${'['.repeat(depth)}${']'.repeat(depth)}}`)
    const { ok, error } = await ann.next('ack') as any
    if (ok) continue
    refused.push(depth)
    if (error.code !== 'FST_ROOMS_INVALID_PAYLOAD') t.fail(`${depth}: ${error.code}`)
  }
  t.equal(refused[0], 1_250)
  t.same(errors, [])
  t.match(app.rooms.stats(), { errors: 0, invalid: refused.length, refusals: { invalid: refused.length, failed: 0 } })
})
