import t from 'tap'
import { noRedis } from '../helpers/redis-server.ts'
import { withoutSignals } from '../helpers/process.ts'
import { runAll } from './run.ts'

t.test('three nodes over Redis: whatever fails, members get every message that was acknowledged, once and in order, or are told', { skip: noRedis || withoutSignals }, async t => {
  await runAll(t, 2)
})
