import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks'
import { spawn } from 'node:child_process'
import t from 'tap'
import { UpgradePacer } from '../../lib/server/upgrade-pacer.ts'
import { createRooms, listen, until } from '../helpers/app.ts'

/** An upgrade of a test: its number, and whether its socket has been destroyed. */
class Fake {
  readonly n: number
  destroyed = false
  constructor (n: number) { this.n = n }
  destroy (): void { this.destroyed = true }
}

const add = (pacer: UpgradePacer, fake: Fake): void => { pacer.add({} as any, fake as any, Buffer.alloc(0)) }
const turn = () => new Promise(resolve => setImmediate(resolve))

/** Keeps the process busy, as an upgrade does. */
function work (milliseconds: number): void {
  const end = performance.now() + milliseconds
  while (performance.now() < end);
}

t.test('upgrades of one instant share turns of the event loop with other work, in order', async t => {
  const taken: { n: number, turn: number }[] = []
  let turns = -1
  const pacer = new UpgradePacer((_request, socket) => {
    work(2)
    taken.push({ n: (socket as unknown as Fake).n, turn: turns })
  })
  for (let n = 0; n < 20; n++) add(pacer, new Fake(n))
  t.ok(taken.length >= 1 && taken.length <= 2, 'the first ones are taken at once, up to 4 ms')
  t.equal(pacer.size, 20 - taken.length)
  for (turns = 0; taken.length < 20 && turns < 100; turns++) await turn()
  t.same(taken.map(({ n }) => n), Array.from({ length: 20 }, (_, n) => n))
  for (let n = 0; n < turns; n++) t.ok(taken.filter(each => each.turn === n).length <= 3, `turn ${n}`)
  t.equal(pacer.size, 0)

  await turn()
  await turn()
  add(pacer, new Fake(20))
  t.equal(taken.at(-1)!.n, 20, 'an upgrade of a quiet time is taken at once')
})

t.test('the asynchronous work of an upgrade counts for its turn', async t => {
  const ended: number[] = []
  let turns = 0
  const pacer = new UpgradePacer(() => {
    Promise.resolve().then(() => { work(5) }).then(() => { ended.push(turns) }, () => {})
  })
  // The first one is taken at once; its work is done before the next turn.
  for (let n = 0; n < 5; n++) add(pacer, new Fake(n))
  work(4)
  for (let n = 5; n < 12; n++) add(pacer, new Fake(n))
  t.equal(pacer.size, 7)
  for (; ended.length < 12 && turns < 100; turns++) await turn()
  t.equal(ended.length, 12)
  t.ok(ended.at(-1)! - ended[5]! >= 3, 'the rest takes several turns')
})

t.test('an upgrade that ended while it waited is left out; those that wait when the server closes are ended', async t => {
  const taken: number[] = []
  const pacer = new UpgradePacer((_request, socket) => {
    work(5)
    taken.push((socket as unknown as Fake).n)
  })
  const fakes = Array.from({ length: 6 }, (_, n) => new Fake(n))
  for (const fake of fakes) add(pacer, fake)
  t.same(taken, [0])
  fakes[1]!.destroy()
  await turn()
  await turn()
  t.same(taken.slice(0, 2), [0, 2])
  for (const fake of fakes.slice(4)) fake.destroy()
  for (let n = 0; n < 5; n++) await turn()
  t.same(taken, [0, 2, 3], 'if all that wait have ended, the queue is empty')

  const late = Array.from({ length: 4 }, (_, n) => new Fake(10 + n))
  for (const fake of late) add(pacer, fake)
  pacer.clear()
  t.same(late.map(fake => fake.destroyed), [false, true, true, true])
  for (let n = 0; n < 3; n++) await turn()
  t.same(taken, [0, 2, 3, 10])
})

t.test('a queue that is never empty keeps none of those that it had, and no upgrade gets the asynchronous context of another', async t => {
  const storage = new AsyncLocalStorage<number>()
  const contexts: unknown[] = []
  let isFull = true
  const pacer: UpgradePacer = new UpgradePacer((_request, socket) => {
    const { n } = socket as unknown as Fake
    contexts.push(storage.getStore())
    storage.enterWith(n)
    if (isFull) storage.exit(add, pacer, new Fake(n + 1_000))
    if (n % 100 === 0) work(5)
  })
  // Each upgrade is an event of its own.
  for (let n = 0; n < 1_000; n++) new AsyncResource('test').runInAsyncScope(add, undefined, pacer, new Fake(n))
  for (let n = 0; contexts.length < 2_500 && n < 1_000; n++) {
    await turn()
    t.ok(pacer.size > 900)
  }
  isFull = false
  for (let n = 0; pacer.size > 0 && n < 1_000; n++) await turn()
  t.ok(contexts.length > 3_000)
  t.same(contexts.filter(store => store !== undefined), [])
})

/** A process that opens connections, and sends an upgrade on all of them in one instant. */
const client = `
  const [port, count] = process.argv.slice(1).map(Number)
  const sockets = Array.from({ length: count }, () => require('node:net').connect(port, '127.0.0.1').resume())
  const request = 'GET /rooms/news HTTP/1.1\\r\\nHost: x\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\nSec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n'
  Promise.all(sockets.map(socket => require('node:events').once(socket, 'connect'))).then(() => setTimeout(() => { for (const socket of sockets) socket.write(request) }, 200))
  setTimeout(() => process.exit(), 30_000)
`

t.test('400 members that join in one instant do so over several turns, and all of them join', async t => {
  let joined = 0
  const app = await createRooms(t, { limits: { perAddress: 1_000 }, onJoin: () => { joined++ } })
  const [, port] = (await listen(app)).split(':')
  let most = 0
  let before = 0
  let timer = setImmediate(function count () {
    most = Math.max(most, joined - before)
    before = joined
    timer = setImmediate(count)
  })
  t.teardown(() => { clearImmediate(timer) })
  const child = spawn(process.execPath, ['-e', client, port!, '400'], { stdio: 'inherit' })
  t.teardown(() => { child.kill() })
  await until(() => joined === 400)
  t.ok(most < 150, `${most} in one turn at most`)
})
