import t from 'tap'
import { MultiplexedConnection, type MultiplexedHub } from '../../lib/connection/multiplexed.ts'
import { createCounters } from '../../lib/hub/counters.ts'
import { webSocketTransport } from '../../lib/transport/websocket.ts'
import { bareHooks, bareSettings, silent } from '../helpers/bare-hub.ts'
import { at, FakeSocket } from '../helpers/fakes.ts'

/** A connection of several topics whose host answers no question about a join. Returns what its peer is sent, the refusals that are counted and the lines of the log, too. */
function asking () {
  const said: any[] = []
  const refused: string[] = []
  const logged: object[] = []
  const hub = {
    state: 'open',
    leaving: 0,
    log: { ...silent, debug: (line: object) => { logged.push(line) } },
    hooks: bareHooks(),
    settings: bareSettings(),
    counters: createCounters(),
    countRefusal: (what: string, reason: string, { topic }: { topic: string }) => { refused.push(`${what} ${reason} ${topic}`) },
    write: (_connection: unknown, frame: Buffer) => { said.push(JSON.parse(frame.subarray(frame.indexOf('{')).toString())) }
  } as unknown as MultiplexedHub
  const rate = { capacity: 100, per: 1_000 }
  const transport = webSocketTransport(new FakeSocket(), { bytesRead: 0 }, 'rooms.v1')
  const connection = at(0, () => new MultiplexedConnection(hub, { transport, address: '-', user: undefined, expiresAt: undefined, rate, identity: null, maxPayload: 1_000, slowBytes: 1_000, permit: () => new Promise(() => {}) }))
  return { connection, said, refused, logged, join: (topic: string) => { connection.join({ type: 'join', topic, ref: topic }) } }
}

const end = (): never => { throw new Error('these joins have no session') }

t.test('each join has its own time, and a stall of the process counts for none', async t => {
  const { connection, said, refused, join } = asking()
  at(1_000, () => { join('first') })
  at(1_600, () => { join('second') })
  t.equal(connection.hasLateJoin(1_999, 1_000), false)
  t.equal(connection.hasLateJoin(2_000, 1_000), true)
  connection.stalledFor(5_000, 6_900)
  t.equal(connection.hasLateJoin(6_999, 1_000), false, 'the peer has not had the time of the stall')
  connection.endLateJoins(7_000, 1_000, end)
  t.match(said, [{ type: 'ack', topic: 'first', ref: 'first', ok: false, error: { code: 'FST_ROOMS_OVERLOADED' }, close: 4100 }])
  t.equal(connection.hasLateJoin(7_599, 1_000), false)
  connection.endLateJoins(7_600, 1_000, end)
  t.match(said.slice(1), [{ topic: 'second', ref: 'second', ok: false }])
  t.same(refused, ['join handshake first', 'join handshake second'])
  t.equal(connection.topics, 2, 'both count until the host has answered')
})

t.test('an error of its stream is logged with its address, because it has no one session', async t => {
  const { connection, logged } = asking()
  const err = new Error('reset')
  connection.failed(err)
  t.same(logged, [{ err, address: '-' }])
})
