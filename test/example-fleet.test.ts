import { spawnSync } from 'node:child_process'
import t from 'tap'
import { WebSocket } from 'ws'
import { createClient } from '../lib/client/index.ts'
import { until } from './helpers/app.ts'
import { startExample, withoutSignals } from './helpers/process.ts'

const skip = withoutSignals || (spawnSync('redis-server', ['--version']).error !== undefined && 'redis-server is not installed')

t.test('the example fleet: visitors talk over two nodes, and miss nothing when one after the other is killed', { skip }, async t => {
  // Redis and two nodes start before the URL is printed.
  const { host, lines, stop } = await startExample(t, 'example/fleet/start.ts')
  t.teardown(() => stop())
  /** The processes that were started for a node, the newest one at the end. */
  const processes = (node: number): number[] => lines.flatMap(line => { const [, pid] = new RegExp(`^node ${node} is up: process (\\d+)$`).exec(line) ?? []; return pid === undefined ? [] : [Number(pid)] })

  const visitors = ['Teal', 'Ruby', 'Amber', 'Jade'].map(name => {
    const client = createClient({ url: `http://${host}/`, multiplex: '/rooms', token: `${name}.${name}`, WebSocket: WebSocket as any, queue: 100 })
    t.teardown(() => client.close())
    const room = client.room('chat:lobby') as any
    const got: string[] = []
    room.on('message', ({ data }: any) => { got.push(data.text) })
    return { room, got }
  })
  await until(() => visitors.every(({ room }) => room.getSnapshot().status === 'open'))

  const said: string[] = []
  const say = async (count: number): Promise<void> => {
    for (let n = 0; n < count; n++) {
      const text = `message ${said.length}`
      said.push(text)
      await visitors[n % visitors.length]!.room.publish({ text })
    }
  }
  const arrived = async (): Promise<void> => {
    await until(() => visitors.every(({ got }) => got.length >= said.length), 30_000)
    for (const { room, got } of visitors) {
      t.same(got, said, 'each message once, in order')
      t.match(room.getSnapshot(), { recovered: true, gap: null })
    }
  }
  await say(8)
  await arrived()
  for (const node of [1, 2]) {
    process.kill(processes(node)[0]!, 'SIGKILL')
    await say(12)
    await arrived()
    await until(() => processes(node).length === 2, 30_000)
  }
  t.ok(visitors.some(({ room }) => room.log().some(({ status }: any) => status === 'reconnecting')), 'connections were lost')
})
