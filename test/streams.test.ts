import { once } from 'node:events'
import { Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { Type } from '@sinclair/typebox'
import t from 'tap'
import type { Session } from '../types/index.ts'
import { connect, createRooms, join, listen, until } from './helpers/app.ts'

const turns = async (): Promise<void> => { for (let i = 0; i < 5; i++) await new Promise(resolve => setImmediate(resolve)) }

t.test('an onJoin that iterates accepts the join, and gets the messages instead of the room', async t => {
  const app = await createRooms(t, {
    onMessage: { '*': () => 'onMessage is off' },
    onJoin: async session => {
      for await (const payload of session) await session.send({ echo: payload })
    }
  })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  t.equal(await app.rooms.count('news'), 1)
  t.same(await client.ask({ type: 'message', data: 1 }, 1), { type: 'ack', ref: 1, ok: true })
  t.same((await client.next('direct')).data, { echo: 1 })
  await client.ask({ type: 'message', data: { a: [2] } })
  t.same((await client.next('direct')).data, { echo: { a: [2] } })
  t.equal(app.rooms.stats().broadcasts, 0)
})

t.test('members without a reader are handled as before', async t => {
  const taken: unknown[] = []
  const app = await createRooms(t, {
    onJoin: async (session, request) => {
      if (request.url.includes('claim')) for await (const payload of session) taken.push(payload)
    }
  })
  const url = await listen(app)
  const claimed = await join(t, `${url}/rooms/news?claim=1`)
  const free = await join(t, `${url}/rooms/news`)
  await claimed.ask({ type: 'message', data: 'mine' })
  await free.ask({ type: 'message', data: 'for all' })
  t.equal((await claimed.next('message')).data, 'for all', 'a member with a reader is still a member')
  t.same(taken, ['mine'])
  t.notMatch(free.received.join(), 'mine')
})

t.test('leaving the loop ends the session', async t => {
  const left: unknown[] = []
  const app = await createRooms(t, {
    onJoin: async session => {
      for await (const payload of session) if (payload === 'enough') break
    },
    onLeave: (_session, reason) => { left.push(reason) }
  })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  await client.ask({ type: 'message', data: 'more' })
  client.send({ type: 'message', data: 'enough' })
  t.same(await client.closed, { code: 1000, reason: 'normal' })
  t.same(left, [{ code: 1000, reason: 'normal' }])
})

t.test('a throw in the loop ends the session as a failure, and goes to onError', async t => {
  const errors: [Error, any][] = []
  const app = await createRooms(t, {
    onJoin: async session => {
      for await (const payload of session) if (payload !== 'good') throw new Error(`cannot take ${payload}`)
    },
    onError: (error, session) => { errors.push([error, session]) }
  })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  client.send({ type: 'message', data: 1 })
  t.same(await client.closed, { code: 1011, reason: 'internal_error' })
  t.match(errors, [[{ message: 'cannot take 1' }, { id: client.hello.session }]])
})

t.test('a throw with a status below 500 in the loop ends the session with the code for that status', async t => {
  const errors: Error[] = []
  const app = await createRooms(t, {
    onJoin: async session => {
      for await (const payload of session) if (payload !== 'good') throw Object.assign(new Error('no'), { statusCode: 401 })
    },
    onError: error => { errors.push(error) }
  })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  client.send({ type: 'message', data: 1 })
  t.same(await client.closed, { code: 4001, reason: 'unauthorized' })
  t.same(errors, [])
})

t.test('when the peer closes, the loop ends after the last message', async t => {
  const events: unknown[] = []
  let left = 0
  const app = await createRooms(t, {
    onJoin: async session => {
      for await (const payload of session) {
        await turns()
        events.push(payload)
      }
      events.push('end')
    },
    onLeave: (_session, { code }) => { left = code }
  })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  for (const data of [1, 2, 3]) client.send({ type: 'message', data })
  client.socket.close(4444)
  await until(() => events.includes('end'))
  t.same(events, [1, 2, 3, 'end'])
  t.equal(left, 4444)
})

t.test('when the server ends the session, the loop ends', async t => {
  let ended = false
  const app = await createRooms(t, {
    onJoin: async session => {
      for await (const payload of session) t.fail(`unexpected message ${payload}`)
      ended = true
    }
  })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  await app.rooms.kick({ topic: 'news' })
  t.equal((await client.closed).code, 4005)
  await until(() => ended)
})

t.test('a message is acknowledged when the reader takes it, one at a time', async t => {
  let iterator!: AsyncIterator<unknown>
  const app = await createRooms(t, { onJoin: session => { iterator = session[Symbol.asyncIterator]() } })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  for (const ref of [1, 2, 3]) client.send({ type: 'message', data: `m${ref}`, ref })
  t.match(await client.ask({ type: 'ping' }, 'ping'), { ref: 'ping' }, 'the first ack is for the ping, which never waits')
  t.same(client.received.filter(text => text.includes('"ref":1')), [])
  t.same(await iterator.next(), { done: false, value: 'm1' })
  t.match(await client.next('ack'), { ref: 1, ok: true })
  await client.ask({ type: 'ping' }, 'again')
  t.same(client.received.filter(text => text.includes('"ref":2')), [])
  t.same((await iterator.next()).value, 'm2')
  t.match(await client.next('ack'), { ref: 2, ok: true })
})

t.test('messages that a reader did not take are not acknowledged', async t => {
  let iterator!: AsyncIterator<unknown>
  const app = await createRooms(t, { onJoin: session => { iterator = session[Symbol.asyncIterator]() } })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  client.send({ type: 'message', data: 'unread', ref: 1 })
  client.send({ type: 'message', data: 'unread', ref: 2 })
  await client.ask({ type: 'ping' })
  await iterator.return!()
  t.same(await client.closed, { code: 1000, reason: 'normal' })
  for (const text of client.received) t.notMatch(JSON.parse(text), { type: 'ack', ref: Number, ok: true })
})

t.test('messages can be claimed later, by any holder of the session', async t => {
  let session!: Session
  const app = await createRooms(t, { onJoin: one => { session = one } })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  await client.ask({ type: 'message', data: 'to the room' })
  const iterator = session[Symbol.asyncIterator]()
  const next = iterator.next()
  await client.ask({ type: 'message', data: 'to the reader' })
  t.same(await next, { done: false, value: 'to the reader' })
  t.equal(app.rooms.stats().broadcasts, 1)
})

t.test('messages are claimed once', async t => {
  const sessions: Session[] = []
  const app = await createRooms(t, { onJoin: session => { sessions.push(session) } })
  const url = await listen(app)
  await join(t, `${url}/rooms/news`)
  await join(t, `${url}/rooms/news`)
  const [one, two] = sessions as [Session, Session]
  one[Symbol.asyncIterator]()
  t.throws(() => one[Symbol.asyncIterator](), { code: 'FST_ROOMS_SESSION_CLAIMED', statusCode: 409 })
  t.throws(() => one.readable, { code: 'FST_ROOMS_SESSION_CLAIMED' })
  const { readable } = two
  t.equal(two.readable, readable, 'repeated reads of session.readable return the same stream')
  t.throws(() => two[Symbol.asyncIterator](), { code: 'FST_ROOMS_SESSION_CLAIMED' })
  t.equal(two.writable, two.writable)
})

t.test('messages that a member sent before hello go to the reader as well', async t => {
  const seen: unknown[] = []
  let open!: () => void
  const gate = new Promise<void>(resolve => { open = resolve })
  const app = await createRooms(t, {
    onJoin: async session => {
      await gate
      for await (const payload of session) seen.push(payload)
    }
  })
  const client = await connect(t, `${await listen(app)}/rooms/news`)
  client.send({ type: 'message', data: 'early' })
  await until(() => app.rooms.stats().connections === 1)
  open()
  await client.ask({ type: 'message', data: 'late' })
  t.same(seen, ['early', 'late'])
})

t.test('a loop over a closed session ends at once', async t => {
  const sessions: Session[] = []
  let left = 0
  let release!: () => void
  const gate = new Promise<void>(resolve => { release = resolve })
  let over = false
  const app = await createRooms(t, {
    onJoin: async (session, request) => {
      sessions.push(session)
      if (!request.url.includes('wait')) return
      await gate
      for await (const payload of session) t.fail(`unexpected message ${payload}`)
      over = true
    },
    onLeave: () => { left++ }
  })
  const url = await listen(app)
  const client = await join(t, `${url}/rooms/news`)
  await client.close()
  await until(() => left === 1)
  t.same(await sessions[0]![Symbol.asyncIterator]().next(), { done: true, value: undefined })

  const other = await connect(t, `${url}/rooms/news?wait=1`)
  await until(() => sessions.length === 2)
  await other.close()
  await until(() => app.rooms.stats().connections === 0)
  release()
  await until(() => over)
  await turns()
  t.equal(left, 2, 'the session was accepted, although its peer had disconnected')
})

t.test('readable, a Transform and writable form an echo', async t => {
  for (const mode of ['rooms.v1', 'rooms.raw'] as const) {
    t.test(mode, async t => {
      const results: unknown[] = []
      const app = await createRooms(t, {
        onJoin: async session => {
          const shout = new Transform({ objectMode: true, transform (payload, _encoding, done) { done(null, { shout: String(payload).toUpperCase() }) } })
          await pipeline(session.readable, shout, session.writable)
          results.push('over')
        },
        onError: error => { results.push(error) }
      })
      const client = await connect(t, `${await listen(app)}/rooms/news`, mode)
      if (mode === 'rooms.v1') {
        await client.next('hello')
        for (const data of ['a', 'b']) client.send({ type: 'message', data })
        t.same([await client.next('direct'), await client.next('direct')].map(({ data }) => data), [{ shout: 'A' }, { shout: 'B' }])
      } else {
        client.send('"a"')
        client.send('b')
        t.same([await client.text(), await client.text()], ['{"shout":"A"}', '{"shout":"B"}'])
      }
      t.same(results, [])
      await client.close()
      await until(() => results.length > 0)
      t.same(results, ['over'])
    })
  }
})

t.test('a stage that fails ends the session as a failure', async t => {
  const errors: Error[] = []
  const app = await createRooms(t, {
    onJoin: session => pipeline(session.readable, new Transform({ objectMode: true, transform (_payload, _encoding, done) { done(new Error('broken')) } }), session.writable),
    onError: error => { errors.push(error) }
  })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  client.send({ type: 'message', data: 1 })
  t.same(await client.closed, { code: 1011, reason: 'internal_error' })
  t.match(errors, [{ message: 'broken' }])
})

t.test('destroying the readable ends the session', async t => {
  let session!: Session
  const app = await createRooms(t, { onJoin: one => { session = one } })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  const { readable } = session
  client.send({ type: 'message', data: 'first' })
  const [payload] = await once(readable, 'data')
  t.equal(payload, 'first')
  readable.destroy()
  t.equal((await client.closed).code, 1000)
})

t.test('data piped into writable is sent, and its end closes the session', async t => {
  let session!: Session
  const app = await createRooms(t, { onJoin: one => { session = one } })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  await pipeline(Readable.from([{ n: 1 }, 'two', 3]), session.writable)
  t.same([await client.next('direct'), await client.next('direct'), await client.next('direct')].map(({ data }) => data), [{ n: 1 }, 'two', 3])
  t.match(await client.next('bye'), { code: 1000 })
  t.same(await client.closed, { code: 1000, reason: 'normal' })
})

t.test('writable alone does not claim messages', async t => {
  let session!: Session
  const app = await createRooms(t, { onJoin: one => { session = one } })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  session.writable.write('hi')
  t.equal((await client.next('direct')).data, 'hi')
  t.match(await client.ask({ type: 'message', data: 'to the room' }), { ok: true, id: String })
})

t.test('an invalid chunk fails the pipeline', async t => {
  let session!: Session
  const errors: Error[] = []
  const app = await createRooms(t, { topics: { news: { message: Type.Number() } }, onJoin: one => { session = one }, onError: error => { errors.push(error) } })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  await t.rejects(pipeline(Readable.from([1, 'two', 3]), session.writable), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
  t.equal((await client.next('direct')).data, 1)
  t.same(errors, [], 'the owner of the stream gets the error')
})

t.test('a write after the session has closed is an error of the stream', async t => {
  let session!: Session
  const app = await createRooms(t, { onJoin: one => { session = one } })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  const { writable } = session
  await client.close()
  await until(() => session.state === 'closed')
  const failed = once(writable, 'error')
  writable.write('late')
  t.match(await failed, [{ code: 'FST_ROOMS_SESSION_CLOSED' }])
})

t.test('an end of writable after the session has closed is not an error', async t => {
  let session!: Session
  const app = await createRooms(t, { onJoin: one => { session = one } })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  const { writable } = session
  await client.close()
  await until(() => session.state === 'closed')
  writable.end()
  await once(writable, 'finish')
  t.pass()
})
