import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { join, until } from '../helpers/app.ts'
import { environment, withoutSignals } from '../helpers/process.ts'

t.test('workers of node:cluster share a topic; one that is killed loses nothing, and the one in its place has everything', { skip: withoutSignals }, async t => {
  const primary = spawn(process.execPath, ['--import', 'tsx', fileURLToPath(new URL('workers.ts', import.meta.url))], { env: environment(), stdio: ['pipe', 'pipe', 'inherit'] })
  t.teardown(async () => {
    primary.kill('SIGKILL')
    await once(primary, 'exit')
  })
  const workers: { worker: number, port: number }[] = []
  const stats: { nodes: number, published: number, history: { messages: number } }[] = []
  createInterface(primary.stdout).on('line', line => {
    const said = JSON.parse(line) as { stats?: typeof stats[0], worker: number, port: number }
    if (said.stats === undefined) workers.push(said)
    else stats.push(said.stats)
  })
  await until(() => workers.length === 2, 60_000)
  const [one, two] = workers as [typeof workers[0], typeof workers[0]]
  const post = async (port: number, data: unknown): Promise<unknown> => {
    const answer = await fetch(`http://127.0.0.1:${port}/rooms/chat`, { method: 'POST', headers: { 'content-type': 'application/json', connection: 'close' }, body: JSON.stringify(data) })
    if (!answer.ok) throw new Error(await answer.text())
    return answer.json()
  }
  const [ann, ben] = [await join(t, `127.0.0.1:${one.port}/rooms/chat`), await join(t, `127.0.0.1:${two.port}/rooms/chat`)]
  t.equal(ann.hello.id, ben.hello.id)
  const text = `ä${'x'.repeat(30_000)}`
  t.match(await post(one.port, text), { published: true })
  const [first, other] = [await ann.next('message'), await ben.next('message')]
  t.equal(other.data, text)
  t.equal(other.id, first.id)
  await Promise.all(Array.from({ length: 20 }, async (_, n) => post(n % 2 === 0 ? one.port : two.port, n)))
  const ids = async (client: typeof ann, count: number): Promise<unknown[]> => {
    const found: unknown[] = []
    while (found.length < count) found.push((await client.next('message')).id)
    return found
  }
  t.same(await ids(ann, 20), await ids(ben, 20))

  primary.stdin.write(`${two.worker}\n`)
  await ben.closed
  for (const n of [20, 21]) await post(one.port, n)
  await until(() => workers.length === 3, 60_000)
  const back = await join(t, `127.0.0.1:${workers[2]!.port}/rooms/chat?since=${other.id}`)
  t.match(back.hello, { recovered: true })
  t.same((await ids(back, 22)).length, 22)
  primary.stdin.write('stats\n')
  await until(() => stats.length === 1)
  t.match(stats[0], { nodes: 2, published: 23, history: { messages: 23 } })
})
