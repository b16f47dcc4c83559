import t from 'tap'
import { Keys } from '../../lib/redis/keys.ts'
import { beatScript, endScript } from '../../lib/redis/node-scripts.ts'
import { Nodes } from '../../lib/redis/nodes.ts'
import { until } from '../helpers/redis-node.ts'

t.test('a node sweeps a dead one once at a time, and again if that has failed', async t => {
  const sweeps: { name: string, resolve (): void, reject (error: Error): void }[] = []
  const ended: unknown[] = []
  const calls = {
    call: async (_partition: number, script: unknown, _keys: readonly string[], args: readonly unknown[]) => {
      if (script === endScript) ended.push(args[0])
      return script === beatScript ? ['ok', '1', 'self:1', 'dead:1'] : []
    }
  }
  const nodes = new Nodes(calls, new Keys('t', 1), 'self', { every: 60_000, ttl: 60_000 }, {
    revived: () => {},
    alive: async () => {},
    sweep: name => new Promise((resolve, reject) => { sweeps.push({ name, resolve, reject }) })
  })
  await nodes.beat()
  await nodes.beat()
  t.same(sweeps.map(({ name }) => name), ['dead:1'], 'a claim that came to its end')
  sweeps[0]!.reject(new Error('cut'))
  await until(() => false, 5)
  t.same(ended, [])
  await nodes.beat()
  t.equal(sweeps.length, 2)
  sweeps[1]!.resolve()
  await until(() => ended.length > 0)
  t.same(ended, ['dead:1'])
  await nodes.close()
})
