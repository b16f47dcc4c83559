import { inspect } from 'node:util'
import t from 'tap'
import { webSocketTransport } from '../../lib/transport/websocket.ts'
import { textFrame } from '../../lib/transport/ws/frame.ts'
import { at, fakeMember } from '../helpers/fakes.ts'

/** A reason for not reading. */
const reason = {}

t.test('the time of a reading pause is noted', async t => {
  const { connection } = at(0, () => fakeMember('peer'))
  at(1_000, () => { connection.holdReading(reason) })
  at(1_500, () => { connection.holdReading(reason) })
  at(3_000, () => { connection.releaseReading(reason) })
  t.equal(connection.withheld, 2_000)
  at(5_000, () => { connection.holdReading(reason) })
  at(5_500, () => { connection.releaseReading(reason) })
  t.equal(connection.withheld, 2_500)
})

t.test('reading resumes when its last hold is released', async t => {
  const { connection, socket } = at(0, () => fakeMember('peer'))
  const [one, two] = [{}, {}]
  at(1_000, () => { connection.holdReading(one) })
  at(2_000, () => { connection.holdReading(two) })
  at(3_000, () => { connection.releaseReading(one) })
  t.ok(socket.isPaused)
  at(3_500, () => { connection.releaseReading(one) })
  t.ok(socket.isPaused, 'a hold is released only once')
  at(4_000, () => { connection.releaseReading(two) })
  t.notOk(socket.isPaused)
  t.equal(connection.withheld, 3_000)
})

t.test('a connection in a log shows its public members alone', async t => {
  const { connection } = at(0, () => fakeMember('peer'))
  const shown = { protocol: 'websocket', mode: 'rooms.v1', address: '127.0.0.1', bufferedBytes: 0 }
  t.same(JSON.parse(JSON.stringify(connection)), shown)
  t.equal(inspect(connection), `Connection ${inspect(shown)}`)
})

t.test('a connection by URL has one session', async t => {
  const { connection, session } = at(0, () => fakeMember('peer'))
  t.same([...connection.sessions], [session])
})

t.test('a connection closes once, and keeps reading for the answer', async t => {
  const { session, connection, socket } = fakeMember('a', 'rooms.v1', { bytesRead: 3 })
  const { transport } = connection
  t.match(connection, { protocol: 'websocket', mode: 'rooms.v1', address: '127.0.0.1', bufferedBytes: 0 })
  t.match(transport, { activity: 3, isOpen: true, isPaused: false })
  t.equal(webSocketTransport(socket, undefined, 'rooms.v1').activity, undefined, 'sockets without known members of ws do not fail either')
  connection.holdReading(reason)
  t.ok(transport.isPaused)
  connection.sessionEnded(session, { code: 4005, reason: 'kicked', by: 'server' })
  connection.sessionEnded(session, { code: 1000, reason: 'normal', by: 'server' })
  t.same(socket.closes, [{ code: 4005, reason: 'kicked' }])
  t.notOk(transport.isPaused)
  connection.holdReading(reason)
  t.notOk(transport.isPaused, 'the answer to the close frame has to be read')
  transport.writeFrame(textFrame('late'))
  t.same(socket.sent, [], 'nothing is written after the close frame')
  transport.terminate()
  t.equal(socket.terminations, 1)
})

t.test('nothing more is written to a connection that is being closed because its peer reads too slowly', async t => {
  const { connection: { transport }, socket } = fakeMember('a')
  transport.writeFrame(textFrame('1'))
  transport.isClosing = true
  transport.writeFrame(textFrame('2'))
  t.same(socket.sent, ['1'])
})
