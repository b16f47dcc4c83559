import t, { type Test } from 'tap'
import type { Position } from '../../types/index.ts'
import { connect, createRooms, join, listen, refused, until, type AnyOptions } from '../helpers/app.ts'
import { bytesOf, framesOf, joinMute } from '../helpers/wire.ts'

const sleep = (milliseconds: number) => new Promise(resolve => setTimeout(resolve, milliseconds))

async function serve (t: Test, history: unknown = true, options: AnyOptions = {}) {
  const app = await createRooms(t, { topics: { news: { history, publish: true } as never, plain: { publish: true } }, ...options })
  const rooms = app.rooms as any
  const publish = async (...payloads: unknown[]): Promise<string[]> => Promise.all(payloads.map(async payload => (await rooms.broadcast('news', payload)).id))
  return { app, rooms, publish, url: await listen(app) }
}

function at (id: string): Position {
  const [epoch, offset] = id.split('-')
  return { epoch: epoch!, offset: Number(offset) }
}

/** A client that has joined, with the payloads of the messages that it was sent so far and will be. */
async function member (t: Test, url: string, query = '') {
  const client = await join(t, `${url}/rooms/news${query}`)
  const payloads = () => client.received.map(text => JSON.parse(text)).filter(({ type }) => type === 'message').map(({ data }) => data)
  const gets = async (expected: unknown[], what: string) => {
    await until(() => payloads().length >= expected.length)
    await sleep(20)
    t.same(payloads(), expected, what)
  }
  return { client, hello: client.hello, gets }
}

t.test('positions: of a topic that keeps messages, from its first publication on, also while it is empty', async t => {
  const { publish, url, rooms } = await serve(t)
  const ids = await publish(1, 2, 3)
  t.same(ids.map(id => at(id).offset), [1, 2, 3])
  t.equal(new Set(ids.map(id => at(id).epoch)).size, 1)
  t.equal((await rooms.broadcast('plain', 1)).id, undefined, 'other topics have none while they are empty')
  const { client, hello } = await member(t, url)
  t.equal(hello.id, ids[2])
  await client.close()
  await until(async () => await rooms.count('news') === 0)
  t.equal(at((await publish(4))[0]!).offset, 4, 'nor does the last leave end them')
})

t.test('the first position exists from the first join on, and outlives the room', async t => {
  const { publish, url, rooms } = await serve(t)
  const { client, hello } = await member(t, url)
  t.equal(at(hello.id!).offset, 0)
  await client.close()
  await until(async () => await rooms.count('news') === 0)
  await publish('a')
  const again = await member(t, url, `?since=${hello.id}`)
  t.match(again.hello, { id: hello.id, recovered: true, replayed: 1 })
  await again.gets(['a'], 'all since the first join')
})

t.test('since: the table of hello', async t => {
  const { publish, url } = await serve(t, { size: 3 })
  const ids = await publish('a', 'b', 'c', 'd', 'e')
  const { epoch } = at(ids[0]!)
  const top = ids[4]!
  const rows: [string, string, object, string[]][] = [
    ['the top', top, { id: top, recovered: true, replayed: 0 }, []],
    ['kept', ids[2]!, { id: ids[2], recovered: true, replayed: 2 }, ['d', 'e']],
    ['kept, exactly', ids[1]!, { id: ids[1], recovered: true, replayed: 3 }, ['c', 'd', 'e']],
    ['trimmed', ids[0]!, { id: top, recovered: false, replayed: 0 }, []],
    ['above the top', `${epoch}-6`, { id: top, recovered: false, replayed: 0 }, []],
    ['another epoch', `${'0'.repeat(16)}-5`, { id: top, recovered: false, replayed: 0 }, []],
    ['0', '0', { id: ids[1], replayed: 3 }, ['c', 'd', 'e']],
    ['latest', 'latest', { id: ids[3], replayed: 1 }, ['e']]
  ]
  for (const [what, since, expected, payloads] of rows) {
    const { hello, gets, client } = await member(t, url, `?since=${since}`)
    t.match(hello, expected, what)
    t.equal('recovered' in hello, 'recovered' in expected, what)
    const [live] = await publish(`after ${what}`)
    await gets([...payloads, `after ${what}`], `${what}: replay, then live`)
    t.equal(JSON.parse(client.received.at(-1)!).id, live)
    await client.close()
    // Brings the topic back to the state that the table is about.
    await publish('c', 'd', 'e')
    const later = await member(t, url)
    const offset = at(later.hello.id!).offset
    ids.splice(0, 5, ...[4, 3, 2, 1, 0].map(back => `${epoch}-${offset - back}`))
    await later.client.close()
    rows.forEach(row => { row[1] = row[1].replace(/-(\d+)$/, (_all, given) => `-${Number(given) + 4}`) })
    rows.forEach(row => { (row[2] as { id: string }).id = (row[2] as { id: string }).id.replace(/-(\d+)$/, (_all, given) => `-${Number(given) + 4}`) })
  }
})

t.test('a replay over the bound is refused as a whole; since=0 gives the newest within it', async t => {
  const { publish, url } = await serve(t, { size: 100, replay: 1_000 })
  const ids = await publish(...Array.from({ length: 10 }, (_, n) => `${n}`.repeat(300)))
  t.match((await member(t, url, `?since=${ids[0]}`)).hello, { id: ids[9], recovered: false, replayed: 0 })
  const some = await member(t, url, `?since=${ids[7]}`)
  t.match(some.hello, { id: ids[7], recovered: true, replayed: 2 })
  await some.gets(['8'.repeat(300), '9'.repeat(300)], 'within the bound')
  const all = await member(t, url, '?since=0')
  t.match(all.hello, { id: ids[7], replayed: 2 })
  t.notOk('recovered' in all.hello)
})

t.test('messages expire as a whole, after the last of them', async t => {
  const { publish, url } = await serve(t, { ttl: 2_000 })
  const ids = await publish('a', 'b')
  await sleep(1_100)
  await publish('c')
  await sleep(1_100)
  t.match((await member(t, url, `?since=${ids[0]}`)).hello, { recovered: true, replayed: 2 }, 'the last publication counts')
  await sleep(2_100)
  const { hello } = await member(t, url, `?since=${ids[0]}`)
  t.match(hello, { recovered: false, replayed: 0 })
  t.same(at(hello.id!), { epoch: at(ids[0]!).epoch, offset: 3 }, 'the position outlives the messages')
  t.match((await member(t, url, `?since=${hello.id}`)).hello, { recovered: true, replayed: 0 })
})

t.test('frames of a replay are those that members got live, byte for byte, in both modes', async t => {
  const { publish, url, rooms } = await serve(t)
  const v1 = await join(t, `${url}/rooms/news`)
  const raw = await connect(t, `${url}/rooms/news`, 'rooms.raw')
  await publish({ ä: '€' }, 'text', null, 'x'.repeat(70_000))
  await rooms.broadcast('news', { of: 'a key' }, { key: 'k' })
  v1.send({ type: 'message', data: [1], key: 'ä' })
  await until(() => raw.received.length === 6 && v1.received.length === 7)
  const again = await join(t, `${url}/rooms/news?since=${v1.hello.id}`)
  const rawAgain = await connect(t, `${url}/rooms/news?since=${v1.hello.id}`, 'rooms.raw')
  await until(() => again.received.length === 7 && rawAgain.received.length === 6)
  t.same(again.received.slice(1), v1.received.slice(1))
  t.same(rawAgain.received, raw.received)
})

t.test('raw mode: 4202 if the position cannot be met', async t => {
  const { publish, url } = await serve(t, { size: 1 })
  const ids = await publish('a', 'b', 'c')
  t.match(await (await connect(t, `${url}/rooms/news?since=${ids[0]}`, 'rooms.raw')).closed, { code: 4202 })
  const met = await connect(t, `${url}/rooms/news?since=${ids[1]}`, 'rooms.raw')
  t.equal(await met.text(), 'c')
})

t.test('a topic of values keeps the newest of each key, and gives them to every member that comes late', async t => {
  const { rooms, url } = await serve(t, { latest: true })
  const early = await member(t, url)
  const set = async (key: string | undefined, value: unknown): Promise<string> => (await rooms.broadcast('news', value, key === undefined ? {} : { key })).id
  await set('a', 'a1')
  await set(undefined, 'u1')
  const b = await set('b', 'b1')
  await set('a', 'a2')
  const top = await set(undefined, 'u2')
  await early.gets(['a1', 'u1', 'b1', 'a2', 'u2'], 'live members get all')
  const before = `${at(b).epoch}-${at(b).offset - 1}`
  for (const since of ['', '?since=0', '?since=latest']) {
    const late = await member(t, url, since)
    t.match(late.hello, { id: before }, since)
    t.equal(late.hello.replayed, 3)
    await late.gets(['b1', 'a2', 'u2'], `in order: ${since}`)
  }
  t.match((await member(t, url, `?since=${b}`)).hello, { id: b, recovered: true, replayed: 2 })
  t.match((await member(t, url, `?since=${early.hello.id}`)).hello, { id: top, recovered: false, replayed: 0 }, 'some were replaced')
  await set('c', 'c1')
  await early.gets(['a1', 'u1', 'b1', 'a2', 'u2', 'c1'], 'live goes on')
})

t.test('since=latest of a topic that keeps all: the newest of each key', async t => {
  const { rooms, url } = await serve(t)
  for (const [key, value] of [['a', 1], ['b', 2], ['a', 3]] as const) await rooms.broadcast('news', value, { key })
  const { hello, gets } = await member(t, url, '?since=latest')
  t.equal(hello.replayed, 2)
  t.equal(at(hello.id!).offset, 1)
  await gets([2, 3], 'by offset')
  await (await member(t, url, '?since=latest')).gets([2, 3], 'made once for each position')
  await rooms.broadcast('news', 4, { key: 'b' })
  await (await member(t, url, '?since=latest')).gets([3, 4], 'made anew for the next position')
})

t.test('authorize is asked for history after join, only if the topic keeps some and the join has since', async t => {
  const asked: string[] = []
  const { publish, url } = await serve(t, true, { authorize: ({ action, topic }: any) => { asked.push(`${action} ${topic}`); return action !== 'history' } })
  const [id] = await publish(1)
  await member(t, url)
  await join(t, `${url}/rooms/plain?since=0`)
  t.same(await refused(`${url}/rooms/news?since=${id}`), { status: 403, body: { statusCode: 403, code: 'FST_ROOMS_FORBIDDEN', error: 'Forbidden', message: 'not allowed: history' } })
  t.same(asked, ['join news', 'join plain', 'join news', 'history news'])
})

t.test('messages that are published between hello and the end of a long replay follow it, each once', async t => {
  const { publish, rooms, url } = await serve(t, { size: 100_000, bytes: 50_000_000, replay: 50_000_000 }, { slow: { bytes: 100_000 } })
  const text = 'x'.repeat(1_000)
  const [first] = await publish(...Array.from({ length: 5_000 }, (_, n) => `${n} ${text}`))
  const peer = await joinMute(t, `${url}/rooms/news?since=${first}`)
  peer.socket.pause()
  await until(async () => await rooms.count('news') === 1)
  for (let n = 5_000; n < 5_200; n++) {
    await publish(`${n} ${text}`)
    if (n % 20 === 0) await sleep(1)
  }
  t.ok(rooms.stats().queuedBytes < 200_000, 'the rest is not buffered')
  t.equal(rooms.stats().lagging, 0, 'a member under replay is not slow')
  peer.socket.resume()
  const numbers = () => framesOf(peer).filter(({ type }) => type === 'message').map(({ data }) => Number(data.split(' ')[0]))
  await until(() => bytesOf(peer).length > 5_199 * 1_000)
  await publish(`5200 ${text}`)
  await until(() => numbers().at(-1) === 5_200)
  t.same(numbers(), Array.from({ length: 5_200 }, (_, n) => n + 1))
  t.match(rooms.stats(), { recovered: 1, slow: 0, dropped: 0 })
  t.ok(rooms.stats().replayed >= 4_999)
})

t.test('private messages and presence reach a member under replay, and the end of the membership ends the replay', async t => {
  const { publish, rooms, url } = await serve(t, { size: 100_000, bytes: 50_000_000, replay: 50_000_000 }, { topics: { news: { history: { size: 100_000, bytes: 50_000_000, replay: 50_000_000 }, presence: true } } })
  const [first] = await publish(...Array.from({ length: 5_000 }, (_, n) => `${n} ${'x'.repeat(1_000)}`))
  const peer = await joinMute(t, `${url}/rooms/news?since=${first}`)
  peer.socket.pause()
  await until(async () => await rooms.count('news') === 1)
  const [{ session }] = await rooms.members('news')
  rooms.send(session, 'hello you') // settles when the peer has read
  const other = await join(t, `${url}/rooms/news`)
  await other.next('presence')
  await other.close()
  await sleep(150)
  peer.socket.resume()
  await until(() => bytesOf(peer).length > 5_000_000)
  const frames = () => framesOf(peer)
  await until(() => frames().at(-1)?.type === 'presence')
  t.match(frames().at(-1), { type: 'presence', count: 1, state: [{ session }] }, 'the list, because it has missed differences')
  t.equal(frames().filter(({ type }) => type === 'direct').length, 1)
  const second = await joinMute(t, `${url}/rooms/news?since=${first}`)
  second.socket.pause()
  await until(async () => await rooms.count('news') === 2)
  await rooms.kick({ topic: 'news' })
  await until(async () => await rooms.count('news') === 0)
  t.equal(rooms.stats().lagging, 0)
})

t.test('messages that are published while onJoin runs follow the kept ones, for every since and in raw mode', async t => {
  for (const [history, since, before] of [[true, 'first', [2]], [true, '0', [1, 2]], [true, 'latest', [2]], [{ latest: true }, undefined, [2]]] as const) {
    const doors: (() => void)[] = []
    const { publish, url } = await serve(t, history, { onJoin: () => new Promise<void>(resolve => { doors.push(resolve) }) })
    const [first] = await publish(1)
    await publish(2)
    const query = since === undefined ? '' : `?since=${since === 'first' ? first : since}`
    const v1 = await connect(t, `${url}/rooms/news${query}`)
    const raw = await connect(t, `${url}/rooms/news${query}`, 'rooms.raw')
    await until(() => doors.length === 2)
    await publish(3)
    for (const open of doors) open()
    const expected = since === 'latest' || since === undefined ? [3] : [...before, 3]
    await until(() => raw.received.length === expected.length && v1.received.length === expected.length + 1)
    const hello = JSON.parse(v1.received[0]!)
    t.match(hello, { replayed: expected.length, ...(since === 'first' ? { recovered: true } : {}) }, `${since}`)
    t.same(v1.received.slice(1).map(text => JSON.parse(text).data), expected)
    t.same(raw.received.map(text => JSON.parse(text)), expected)
  }
})

t.test('values that are older than one that was replaced are sent to members that come late', async t => {
  for (const onJoin of [undefined, async () => { await sleep(1) }]) {
    const { rooms, url } = await serve(t, { latest: true }, onJoin === undefined ? {} : { onJoin })
    for (const [key, data] of [['a', 'a1'], ['b', 'b1'], ['b', 'b2'], ['c', 'c1'], ['b', 'b3']] as const) await rooms.broadcast('news', data, { key })
    for (const since of ['', '?since=0', '?since=latest']) {
      const { hello, gets } = await member(t, url, since)
      t.equal(hello.replayed, 3)
      t.equal(at(hello.id!).offset, 0)
      await gets(['a1', 'c1', 'b3'], `all values: ${since}`)
    }
    const keeper = await member(t, url)
    await rooms.broadcast('news', 'a2', { key: 'a' })
    await (await member(t, url)).gets(['c1', 'b3', 'a2'], 'a value that was replaced is gone')
    await keeper.gets(['a1', 'c1', 'b3', 'a2'], 'live')
  }
})

t.test('messages that have expired are not replayed, however often members ask for the newest of each key', async t => {
  const { publish, url } = await serve(t, { ttl: 1_500 })
  await publish('old')
  const one = await member(t, url, '?since=latest')
  t.equal(one.hello.replayed, 1)
  await sleep(1_700)
  t.equal((await member(t, url, '?since=latest')).hello.replayed, 0)
})

t.test('a member that takes none of its replay is closed with 4201, even if it answers pings; one that reads slowly gets all of it', async t => {
  const history = { size: 100_000, bytes: 50_000_000, replay: 50_000_000 }
  const { publish, rooms, url } = await serve(t, history, { heartbeat: { interval: 100, timeout: 100 }, limits: { unfinished: 400 } })
  const [first] = await publish(...Array.from({ length: 15_000 }, (_, n) => `${n} ${'x'.repeat(1_000)}`))
  const mute = await joinMute(t, `${url}/rooms/news?since=${first}`)
  const slow = await joinMute(t, `${url}/rooms/news?since=${first}`)
  mute.socket.pause()
  const timers = [
    setInterval(() => { mute.send(10, '') }, 20),
    setInterval(() => { slow.send(10, '') }, 20),
    setInterval(() => {
      slow.socket.resume()
      setTimeout(() => { slow.socket.pause() }, 1)
    }, 25)
  ]
  t.teardown(() => { timers.forEach(clearInterval) })
  await until(async () => await rooms.count('news') === 1)
  t.match(rooms.stats(), { slow: 1, silent: 0, connections: 2 })
  await sleep(1_000)
  t.match(rooms.stats(), { slow: 1, members: 1 }, 'reading a little now and then is enough')
  timers.forEach(clearInterval)
  await sleep(5)
  slow.socket.resume()
  await until(() => framesOf(slow).filter(({ type }) => type === 'message').length === 14_999)
})
