import { inspect } from 'node:util'
import { Type } from '@sinclair/typebox'
import t, { type Test } from 'tap'
import type { Session } from '../types/index.ts'
import { connect, createRooms, join, listen, until, type AnyOptions } from './helpers/app.ts'

/** An app, and its sessions in the order of their joins. */
async function create (t: Test, options: AnyOptions = {}) {
  const sessions: Session<string, any>[] = []
  const app = await createRooms(t, { onJoin: session => { sessions.push(session) }, ...options })
  return { app, sessions, url: await listen(app) }
}

const turns = async (): Promise<void> => { for (let i = 0; i < 5; i++) await new Promise(resolve => setImmediate(resolve)) }

t.test('a session has its id, user, info, topic, mode, address and time of the join', async t => {
  const { app, sessions, url } = await create(t, { identify: request => request.headers['x-user'] === undefined ? null : { user: 'anna', info: { name: 'Anna' } } })
  const before = Date.now()
  const client = await join(t, `${url}/rooms/news`, { headers: { 'x-user': '1' } })
  const [session] = sessions as [Session]
  t.equal(session.id, client.hello.session)
  t.equal(session.key, '*')
  t.equal(session.topic, 'news')
  t.equal(session.user, 'anna')
  t.same(session.info, { name: 'Anna' })
  t.equal(session.state, 'open')
  t.ok(session.connectedAt instanceof Date && session.connectedAt.getTime() >= before && session.connectedAt.getTime() <= Date.now())
  t.equal(session.connection.mode, 'rooms.v1')
  t.equal(session.connection.address, '127.0.0.1')
  t.equal(session.connection.bufferedBytes, 0)
  t.equal(session.rooms, app.rooms)

  await connect(t, `${url}/rooms/sports`, 'rooms.raw')
  await until(() => sessions.length === 2)
  t.match(sessions[1], { topic: 'sports', user: undefined, info: undefined, connection: { mode: 'rooms.raw' } })
  t.not(sessions[1]!.id, session.id)
})

t.test('a logged session has its user and topic, and no info or data of other members', async t => {
  const { sessions, url } = await create(t, { identify: request => ({ user: request.headers['x-user'] as string, info: { token: 'secret' }, expires: new Date('2100-01-01T00:00:00Z') }) })
  for (const user of ['anna', 'ben']) await join(t, `${url}/rooms/news`, { headers: { 'x-user': user } })
  const [anna] = sessions as [Session]
  const { id, connectedAt } = anna
  t.same(JSON.parse(JSON.stringify({ anna })), { anna: { id, key: '*', topic: 'news', user: 'anna', state: 'open', connectedAt: connectedAt.toISOString(), expires: '2100-01-01T00:00:00.000Z' } })
  for (const depth of [0, 2, Infinity]) {
    const text = inspect({ anna }, { depth })
    t.notMatch(text, /ben|secret|token/)
    if (depth > 0) t.match(text, new RegExp(`anna: Session {\\s+id: '${id}'`))
  }
})

t.test('topicKey is the key in the topic map', async t => {
  const { sessions, url } = await create(t, { topics: { 'chat:*': {}, 'chat:main': {} } })
  await join(t, `${url}/rooms/chat:42`)
  await join(t, `${url}/rooms/chat:main`)
  t.same(sessions.map(({ key, topic }) => [key, topic]), [['chat:*', 'chat:42'], ['chat:main', 'chat:main']])
})

t.test('info follows the presence frames of the member', async t => {
  const { sessions, url } = await create(t)
  const client = await join(t, `${url}/rooms/news`)
  t.match(await client.ask({ type: 'presence', info: { mood: 'good' } }), { ok: true })
  t.same(sessions[0]!.info, { mood: 'good' })
})

t.test('send reaches only this member, as a direct frame, or in raw mode as the bare payload', async t => {
  const { sessions, url } = await create(t)
  const one = await join(t, `${url}/rooms/news`)
  const two = await connect(t, `${url}/rooms/news`, 'rooms.raw')
  await until(() => sessions.length === 2)
  t.equal(await sessions[0]!.send({ hello: 'ä' }), undefined)
  t.same(await one.next('direct'), { type: 'direct', data: { hello: 'ä' } })
  await sessions[1]!.send({ n: 1 })
  await sessions[1]!.send('text')
  t.equal(await two.text(), '{"n":1}')
  t.equal(await two.text(), 'text', 'a string on an untyped topic is sent as text')
})

t.test('send validates the payload by the schema of messages to members', async t => {
  const errors: Error[] = []
  const { sessions, url } = await create(t, { topics: { news: { message: Type.Object({ n: Type.Number() }) } }, onError: error => { errors.push(error) } })
  const client = await join(t, `${url}/rooms/news`)
  await t.rejects(sessions[0]!.send({ n: '1' }), { code: 'FST_ROOMS_INVALID_PAYLOAD', details: [{ path: '/n', message: 'must be number' }] })
  await sessions[0]!.send({ n: 1 })
  t.same(await client.next('direct'), { type: 'direct', data: { n: 1 } }, 'no earlier message came')
  t.equal(errors.length, 1, 'a failure goes to onError, awaited or not')
})

t.test('send waits while bytes are buffered, and continues when the peer reads again', async t => {
  const { app, sessions, url } = await create(t, { slow: { bytes: 1_000_000_000 } })
  const client = await join(t, `${url}/rooms/news`)
  const [session] = sessions as [Session]
  client.socket.pause()
  const big = 'x'.repeat(1_000_000)
  let pending: Promise<void> | undefined
  let settled = false
  for (let i = 0; i < 200 && pending === undefined; i++) {
    settled = false
    const sent = session.send(big).then(() => { settled = true })
    await turns()
    if (!settled) {
      await new Promise(resolve => setTimeout(resolve, 100))
      if (!settled) pending = sent
    }
  }
  t.ok(pending, 'send waits because the peer does not read')
  t.ok(session.connection.bufferedBytes > 65_536)
  t.ok(app.rooms.stats().queuedBytes > 65_536)
  t.notOk(settled)
  client.socket.resume()
  await pending
  await until(() => session.connection.bufferedBytes === 0)
  await session.send('after')
  await until(() => client.received.at(-1) === '{"type":"direct","data":"after"}')
})

t.test('send also waits if the room has sent a message in the same turn', async t => {
  const { app, sessions, url } = await create(t)
  const client = await join(t, `${url}/rooms/news`)
  client.socket.pause()
  const all = 100_000
  let sent = 0
  const send = async (): Promise<void> => {
    await app.rooms.broadcast('news', 'first')
    while (sent < all) {
      await sessions[0]!.send('x'.repeat(1_000))
      sent++
    }
  }
  send().catch(() => {})
  await new Promise(resolve => setImmediate(resolve))
  t.ok(sent < all, 'a caller that awaits each send lets the turn end')
})

t.test('a waiting send rejects when the peer disconnects', async t => {
  const { sessions, url } = await create(t, { slow: { bytes: 1_000_000_000 } })
  const client = await join(t, `${url}/rooms/news`)
  const [session] = sessions as [Session]
  client.socket.pause()
  const big = 'x'.repeat(1_000_000)
  const sent = Array.from({ length: 40 }, () => session.send(big))
  client.socket.terminate()
  const outcomes = await Promise.allSettled(sent)
  t.match(outcomes.at(-1), { status: 'rejected', reason: { code: 'FST_ROOMS_SESSION_CLOSED' } })
})

t.test('the signal is aborted at the end of the session, also if it is first read afterwards', async t => {
  const { sessions, url } = await create(t)
  const client = await join(t, `${url}/rooms/news`)
  const late = await join(t, `${url}/rooms/news`)
  const [session, other] = sessions as [Session, Session]
  const { signal } = session
  t.equal(session.signal, signal)
  t.equal(signal.aborted, false)
  let fired = 0
  signal.addEventListener('abort', () => { fired++ })
  await client.close()
  await until(() => session.state === 'closed')
  t.equal(fired, 1)
  t.match(signal.reason, { code: 'FST_ROOMS_SESSION_CLOSED' })

  await late.close()
  await until(() => other.state === 'closed')
  t.equal(other.signal.aborted, true)
  t.match(other.signal.reason, { code: 'FST_ROOMS_SESSION_CLOSED', message: `session "${other.id}" has closed` })
})

t.test('the signal is aborted when the server ends the session, before the socket has closed', async t => {
  const { sessions, url } = await create(t)
  await join(t, `${url}/rooms/news`)
  const { signal } = sessions[0]!
  sessions[0]!.close()
  t.equal(signal.aborted, true)
  t.equal(sessions[0]!.state, 'closed')
})

t.test('close removes the member from its room at once, sends bye, and then closes', async t => {
  const { app, sessions, url } = await create(t)
  const [client, second, third] = [await join(t, `${url}/rooms/news`), await join(t, `${url}/rooms/news`), await join(t, `${url}/rooms/news`)]
  const pending = app.rooms.count('news')
  sessions[0]!.close()
  t.equal(await pending, 3)
  t.equal(await app.rooms.count('news'), 2)
  t.match(await client.next('bye'), { code: 1000, reason: 'normal' })
  t.same(await client.closed, { code: 1000, reason: 'normal' })
  sessions[1]!.close(4005)
  t.same(await second.closed, { code: 4005, reason: 'kicked' }, 'the default reason is the name of the code')
  sessions[2]!.close(3333, 'grund ä')
  sessions[2]!.close(4999, 'too late')
  t.same(await third.closed, { code: 3333, reason: 'grund ä' }, 'the first close counts')
})

t.test('a close with an invalid code or reason throws, and the session stays open', async t => {
  const { sessions, url } = await create(t)
  const client = await join(t, `${url}/rooms/news`)
  const [session] = sessions as [Session]
  for (const code of [0, 999, 1004, 1005, 1006, 1010, 1015, 2999, 5000, 4000.5, NaN, '4000']) {
    t.throws(() => session.close(code as number), { code: 'FST_ROOMS_INVALID_CLOSE' }, String(code))
  }
  for (const reason of ['x'.repeat(124), 'ä'.repeat(62), 7]) t.throws(() => session.close(4000, reason as string), { code: 'FST_ROOMS_INVALID_CLOSE' })
  t.equal(session.state, 'open')
  session.close(4000, 'ä'.repeat(61) + 'x')
  t.same(await client.closed, { code: 4000, reason: 'ä'.repeat(61) + 'x' }, '123 bytes are allowed')
})

t.test('a closed session sends nothing more', async t => {
  const { app, sessions, url } = await create(t)
  const client = await join(t, `${url}/rooms/news`)
  sessions[0]!.close()
  await t.rejects(sessions[0]!.send(1), { code: 'FST_ROOMS_SESSION_CLOSED' })
  await t.rejects(app.rooms.send(sessions[0]!.id, 1), { code: 'FST_ROOMS_NO_SUCH_SESSION' })
  await client.closed
  t.notMatch(client.received.join(), '"direct"')
})
