import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { callOnJoined } from '../../lib/session/joined.ts'

function fakeSession () {
  const ended: number[] = []
  const connection = { stalled: 0, hub: { stalledFor: () => 0 } }
  const session = { state: 'open', lag: { hold: {} } as object | undefined, connection, end: ({ code }: { code: number }) => { ended.push(code) } }
  return { session, connection, ended }
}

const hub = { settings: { limits: { handshake: 30 } }, release () {} } as never
const never = (): Promise<never> => new Promise(() => {})

t.test('time in which the process stood still does not count for onJoined', async t => {
  const { session, connection, ended } = fakeSession()
  callOnJoined(hub, session as never, never)
  connection.stalled = 150
  await sleep(100)
  t.same(ended, [])
  await sleep(200)
  t.same(ended, [4100])
})

t.test('a stall that the heartbeat has not noted yet does not count, either', async t => {
  const { session, connection, ended } = fakeSession()
  callOnJoined(hub, session as never, never)
  connection.hub.stalledFor = () => 150
  await sleep(100)
  t.same(ended, [])
  await sleep(200)
  t.same(ended, [4100])
})

t.test('a member that no longer waits is not ended', async t => {
  const { session, ended } = fakeSession()
  callOnJoined(hub, session as never, never)
  session.lag = undefined
  await sleep(100)
  t.same(ended, [])
})

t.test('the watch ends with onJoined', async t => {
  const { session, ended } = fakeSession()
  await callOnJoined(hub, session as never, () => {})
  await sleep(100)
  t.same(ended, [])
})
