import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Type } from '@sinclair/typebox'
import t, { type Test } from 'tap'
import type { Session } from '../types/index.ts'
import fastifyRooms from '../lib/index.ts'
import { connect, createApp, createRooms, join, listen, until, type AnyOptions } from './helpers/app.ts'
import { clientFrame, joinMute } from './helpers/wire.ts'

/** An app, and the errors that reached the process. */
async function serve (t: Test, options: AnyOptions = {}) {
  const stray: unknown[] = []
  const hear = (error: unknown): void => { stray.push(error) }
  for (const event of ['unhandledRejection', 'uncaughtException'] as const) {
    process.on(event, hear)
    t.teardown(() => { process.removeListener(event, hear) })
  }
  const errors: Error[] = []
  const app = await createRooms(t, { onError: error => { errors.push(error) }, ...options })
  return { app, rooms: app.rooms, url: await listen(app), errors, stray }
}

const turns = async (count = 5): Promise<void> => { for (let i = 0; i < count; i++) await new Promise(resolve => setImmediate(resolve)) }

t.test('a member that stops reading and resets its connection affects no other member, however many bytes were buffered', async t => {
  const { rooms, url, stray } = await serve(t, { limits: { payload: 1_000_000 }, slow: { bytes: 1_000_000_000 } })
  const [victim, sender] = [await join(t, `${url}/rooms/news`), await join(t, `${url}/rooms/news`)]
  victim.socket.pause()
  const data = 'x'.repeat(500_000)
  await until(async () => {
    await sender.ask({ type: 'direct', to: victim.hello.session, data })
    return rooms.stats().queuedBytes > 2_000_000
  }, 20_000);
  (victim.socket as any)._socket.resetAndDestroy()
  await until(async () => await rooms.count('news') === 1)
  await turns()
  t.same(stray, [])
})

t.test('reading is paused for a member that requests snapshots and does not read them, so its answers do not pile up', async t => {
  const { rooms, url } = await serve(t, { limits: { messages: 10_000 }, identify: request => ({ user: 'u', info: { text: String((request.query as any).n).repeat(900) } }) })
  const crowd = await Promise.all(Array.from({ length: 40 }, () => join(t, `${url}/rooms/news?n=x`)))
  const greedy = await join(t, `${url}/rooms/news?n=x`)
  greedy.socket.pause()
  for (let i = 0; i < 3_000; i++) greedy.send({ type: 'presence' })
  let most = 0
  const until1s = Date.now() + 1_000
  while (Date.now() < until1s) {
    most = Math.max(most, rooms.stats().queuedBytes)
    await turns()
  }
  t.ok(most < 8_000_000, `${most} bytes buffered at most; all answers would have been over 100 MB`)
  t.match(await crowd[0]!.ask({ type: 'ping' }), { ok: true })
})

t.test('an error whose code is a name of Object.prototype closes like any other', async t => {
  for (const code of ['constructor', 'toString', '__proto__']) {
    const { url, stray } = await serve(t, { onJoin: () => { throw Object.assign(new Error('no'), { code }) } })
    const client = await connect(t, `${url}/rooms/news`)
    t.match(await client.closed, { code: 4003 })
    t.same(stray, [])
  }
})

t.test('presence info stays as validated, even if the host changes its object later', async t => {
  const info: Record<string, unknown> = { name: 'one' }
  let session!: Session
  const { rooms, url, stray } = await serve(t, { identify: () => ({ user: 'u', info }), onJoin: one => { session = one as Session } })
  const first = await join(t, `${url}/rooms/news`)
  await first.next('presence')
  info.self = info
  info.name = 'two'
  await rooms.kick({ user: 'nobody' })
  t.match(await rooms.members('news'), [{ info: { name: 'one' } }])
  t.throws(() => { (session.info as any).name = 'three' }, TypeError)
  t.match(await first.ask({ type: 'presence' }), { ok: true })
  t.same(JSON.parse(first.received.findLast(text => text.includes('"state"'))!).state[0].info, { name: 'one' })
  t.same(stray, [])
})

t.test('a reader that leaves its loop ends a raw session with 1000, and one that throws with 1011, even if a message waits', async t => {
  for (const [leave, code] of [[() => true, 1000], [() => { throw new Error('of the host') }, 1011]] as const) {
    const { url } = await serve(t, {
      onJoin: async session => {
        for await (const payload of session) {
          t.equal(payload, 1)
          await turns() // until the second message is offered
          if (leave()) break
        }
      }
    })
    const client = await connect(t, `${url}/rooms/news`, 'rooms.raw')
    client.send('1')
    client.send('2')
    t.match(await client.closed, { code })
  }
})

t.test('messages that wait when a member is kicked are dropped', async t => {
  const answers: ((allowed: boolean) => void)[] = []
  const { rooms, url } = await serve(t, { authorize: context => 'session' in context ? new Promise<boolean>(resolve => { answers.push(resolve) }) : true })
  const [bad, other] = [await join(t, `${url}/rooms/news`), await join(t, `${url}/rooms/news`)]
  bad.send({ type: 'message', data: 'spam' })
  await until(() => answers.length === 1)
  await rooms.kick({ session: bad.hello.session })
  answers[0]!(true)
  const writer = await join(t, `${url}/rooms/news`)
  writer.send({ type: 'direct', to: other.hello.session, data: 'spam' })
  await until(() => answers.length === 2)
  await rooms.kick({ session: writer.hello.session })
  answers[1]!(true)
  await turns()
  await rooms.broadcast('news', 'next')
  t.match(await other.next('message'), { data: 'next' })
  t.notOk(other.received.some(text => text.includes('spam')))
})

t.test('the validated payload is the one that is sent, also for objects with a toJSON', async t => {
  const At = Type.Object({ at: Type.String({ format: 'date-time' }) })
  const { rooms, url } = await serve(t, { topics: { news: { message: At } } })
  const client = await join(t, `${url}/rooms/news`)
  class Model { get at () { return '2026-01-01T00:00:00Z' } }
  for (const payload of [new Model(), Object.assign(Object.create({ toJSON: () => ({ secret: 1 }) }), { at: '2026-01-01T00:00:00Z' }), { at: { toJSON: () => 5 } }]) {
    await t.rejects(rooms.broadcast('news', payload as never), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
  }
  await rooms.broadcast('news', { at: new Date(0) } as never)
  t.same((await client.next('message')).data, { at: '1970-01-01T00:00:00.000Z' })
})

t.test('a body that is nested too deeply is an error of the client', async t => {
  const Tree = Type.Recursive(This => Type.Object({ kids: Type.Array(This) }))
  const { app, rooms } = await serve(t, { topics: { any: { post: true }, tree: { message: Tree, post: true } }, authorize: () => true, limits: { payload: 1_000_000 } })
  const headers = { 'content-type': 'application/json' }
  const flat = await app.inject({ method: 'POST', url: '/rooms/any', headers, payload: '['.repeat(30_000) + ']'.repeat(30_000) })
  t.match([flat.statusCode, flat.json().code], [400, 'FST_ROOMS_INVALID_PAYLOAD'])
  const tree = await app.inject({ method: 'POST', url: '/rooms/tree', headers, payload: '{"kids":['.repeat(20_000) + ']}'.repeat(20_000) })
  t.match([tree.statusCode, tree.json().code], [400, 'FST_ROOMS_INVALID_PAYLOAD'])
  t.equal(rooms.stats().broadcasts, 0)
})

t.test('broadcasts of an upgrade request are refused, because it has no response to wait for', async t => {
  const failures: unknown[] = []
  const { url } = await serve(t, {
    onJoin: (_session, request) => {
      try {
        request.rooms.broadcast('news', 1)
      } catch (error) {
        failures.push(error)
      }
    }
  })
  await join(t, `${url}/rooms/news`)
  t.match(failures, [{ code: 'FST_ROOMS_NO_RESPONSE' }])
})

t.test('app.close waits for messages in flight, and takes no new ones', async t => {
  let finish = (): void => {}
  const { app, url } = await serve(t, {
    onMessage: {
      '*': async (session, payload) => {
        if (payload === 'slow') await new Promise<void>(resolve => { finish = resolve })
        await session.rooms.broadcast('news', payload)
      }
    }
  })
  const [client, other] = [await join(t, `${url}/rooms/news`), await join(t, `${url}/rooms/news`)]
  client.send({ type: 'message', data: 'slow', ref: 1 })
  client.send({ type: 'message', data: 'queued', ref: 2 })
  await client.ask({ type: 'ping' }, 'both are there')
  const closed = app.close()
  await until(() => app.rooms.health().state === 'draining')
  client.send({ type: 'message', data: 'late', ref: 3 })
  await client.ask({ type: 'ping' }, 'all are there')
  finish()
  await closed
  await Promise.all([client.closed, other.closed])
  const types = other.received.map(text => JSON.parse(text)).filter(({ type }) => type !== 'presence').map(({ type, data }) => data ?? type)
  t.same(types, ['hello', 'slow', 'queued', 'bye'])
  t.same(client.received.map(text => JSON.parse(text)).filter(({ type }) => type === 'ack').map(({ ref }) => ref), ['both are there', 'all are there', 1, 2])
})

t.test('an oversize frame before hello is refused at once', async t => {
  let accept = (): void => {}
  const { url } = await serve(t, { limits: { payload: 100 }, onJoin: () => new Promise<void>(resolve => { accept = resolve }) })
  const client = await connect(t, `${url}/rooms/news`)
  client.send('x'.repeat(150))
  t.match(await client.closed, { code: 1009 })
  accept()
})

t.test('an error of session.writable without a listener goes to onError, and a write after the close is not an error', async t => {
  let session!: Session
  const { url, errors, stray } = await serve(t, { topics: { news: { message: Type.Number() } }, onJoin: one => { session = one as Session } })
  const client = await join(t, `${url}/rooms/news`)
  session.writable.write('no number')
  await until(() => errors.length === 1)
  t.match(errors, [{ code: 'FST_ROOMS_INVALID_PAYLOAD' }])
  await client.close()

  const second = await join(t, `${url}/rooms/news`)
  const { writable } = session
  await second.close()
  await until(() => session.state === 'closed')
  writable.write(1)
  await new Promise(resolve => { writable.once('close', resolve) })
  t.equal(errors.length, 1)
  t.same(stray, [])
})

t.test('a connection does not retain its request after the join', async t => {
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('gc') as () => void
  const held: WeakRef<object>[] = []
  const { app, url } = await serve(t, { onJoin: (_session, request) => { held.push(new WeakRef(request), new WeakRef(request.raw)) } })
  const client = await join(t, `${url}/rooms/news`)
  await until(async () => {
    await turns()
    gc()
    return held.every(ref => ref.deref() === undefined)
  }, 10_000)
  t.equal(held.length, 2)
  t.match(await client.ask({ type: 'ping' }), { ok: true })
  t.equal(await app.rooms.count('news'), 1)
})

t.test('effects of a peer\'s last messages still reach it if its close, or a violation, came in the same read', async t => {
  const { url } = await serve(t)
  for (const [last, code] of [[clientFrame(8, Buffer.of(0x03, 0xe8)), '\x03\xe8'], [Buffer.of(0x83, 0x80, 0, 0, 0, 0), '\x03\xea']] as const) {
    const peer = await joinMute(t, `${url}/rooms/news`)
    await until(() => peer.text().includes('"hello"'))
    peer.socket.write(Buffer.concat([clientFrame(1, '{"type":"message","data":"mine","ref":1}'), last]))
    await until(() => peer.text().includes(`\x88\x02${code}`))
    const text = peer.text()
    t.ok(text.indexOf('"mine"') > 0 && text.indexOf('"mine"') < text.indexOf('"ack"') && text.indexOf('"ack"') < text.indexOf('\x88\x02'), 'message, ack and close come in this order')
  }
})

t.test('a send is awaited to its end, whatever high-water mark the host sets', async t => {
  const app = createApp(t, { http: { highWaterMark: 4_000_000 } } as object)
  const sessions: Session[] = []
  await app.register(fastifyRooms as any, { prefix: '/rooms', onJoin: (session: Session) => { sessions.push(session) } })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  await until(() => sessions.length === 1)
  client.socket.pause()
  const [session] = sessions as [Session]
  while (session.connection.bufferedBytes <= 65_536) await Promise.race([session.send('x'.repeat(50_000)), turns()])
  const last = session.send('the last')
  client.socket.resume()
  await last
  t.equal(session.connection.bufferedBytes, 0)
})

t.test('an upgrade may take all of limits.handshake', async t => {
  const { url } = await serve(t, { limits: { handshake: 400 }, authorize: () => new Promise(() => {}) })
  const begin = performance.now()
  await t.rejects(join(t, `${url}/rooms/news`))
  t.ok(performance.now() - begin >= 400, String(performance.now() - begin))
})
