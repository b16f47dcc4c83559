import t from 'tap'
import { withoutNats } from '../helpers/nats-server.ts'
import { withoutSignals } from '../helpers/process.ts'
import { runOverNats, startNatsFleet } from './nats.ts'
import { runAll } from './run.ts'

t.test('three nodes over NATS: whatever fails, members lose only what their own node could not get, and are told', { skip: withoutNats || withoutSignals }, async t => {
  await runAll(t, 2, { start: startNatsFleet, run: runOverNats, file: 'nats.test.ts', short: { members: 40 } })
})
