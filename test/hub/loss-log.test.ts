import { mock } from 'node:test'
import t from 'tap'
import { LossLog } from '../../lib/hub/loss-log.ts'
import { silent } from '../helpers/bare-hub.ts'

t.test('losses within a second share a line for each reason, with the first one as an example', t => {
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => { mock.timers.reset() })
  const lines: unknown[] = []
  const losses = new LossLog({ ...silent, warn: (object, message) => { lines.push([object, message.split(':')[0]]) } })
  losses.note('a', { reason: 'lost', count: 3, from: 'e-1', to: 'e-4' })
  for (let i = 0; i < 1_000; i++) losses.note(`b${i}`, { reason: 'lost' })
  losses.note('c', { reason: 'reset', to: 'f-1' })
  mock.timers.tick(999)
  t.same(lines, [])
  mock.timers.tick(1)
  t.same(lines.splice(0), [
    [{ losses: 1_001, topic: 'a', count: 3, from: 'e-1', to: 'e-4' }, 'messages may be missing'],
    [{ losses: 1, topic: 'c', to: 'f-1' }, 'the broker has lost data']
  ])
  mock.timers.tick(10_000)
  losses.note('d', { reason: 'lost' })
  losses.close()
  t.match(lines, [[{ losses: 1, topic: 'd' }, 'messages may be missing']])
  mock.timers.tick(10_000)
  losses.close()
  t.equal(lines.length, 1, 'each is written once')
  t.end()
})
