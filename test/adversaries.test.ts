import t, { type Test } from 'tap'
import { bomb, comeAndGo, dawdle, explode, flood, mishandshake, stretch, talkAfterClose, tatter, violate } from './adversaries/attacks.ts'
import { fuzz } from './adversaries/fuzz.ts'
import { startPairs, startTarget, type Target } from './adversaries/target.ts'
import { violations } from './adversaries/violations.ts'
import { createRooms, join, listen, until, type Client } from './helpers/app.ts'

const target = await startTarget(t)
const pairs = startPairs(t)

/**
 * A server in a process of its own, and two pairs of well-behaved members, one of them in the topic that is attacked. While an attack lasts, and after it, they must
 * lose no message; the process must not fail; nothing that the attacker leaves may stay.
 */
function attack (name: string, run: (target: Target, complain: (text: string) => void) => Promise<void>): Promise<unknown> {
  return t.test(name, { timeout: 120_000 }, async (t: Test) => {
    await pairs.start(['calm', 'attacked'].map(topic => `127.0.0.1:${target.port}/lobby/${topic}`))
    const faults: string[] = []
    target.begin()
    const began = performance.now()
    await run(target, text => { faults.push(text) })
    const took = Math.round(performance.now() - began)
    const { stall, megabytes, ...condition } = await target.settles(({ lobby, typed }) => lobby.connections === 4 && lobby.topics === 2 && typed.connections + typed.topics === 0, 'rid of the attacker')
    t.match(condition, { stray: [], errors: [], logged: [] })
    t.same(faults, [])
    const [calm, attacked] = await pairs.stop() as [any, any]
    t.same([calm.faults, attacked.faults], [[], []])
    t.ok(calm.sent > 0 && attacked.sent > 0)
    t.comment(`${took} ms; p99 ${calm.p99} ms in a topic of their own (${calm.sent} messages, at most ${calm.max} ms), ${attacked.p99} ms in the one attacked; the loop stood still for ${stall} ms at most; ${megabytes} MB`)
  })
}

await attack('violations of RFC 6455 end with the code that it has for them', async (target, complain) => {
  await violate(target, complain)
  await stretch(target, complain)
  await talkAfterClose(target, complain)
})
await attack('JSON that is to hurt is taken or refused, and hurts nobody', bomb)
await attack('handshakes that are not as they should be get their status', mishandshake)
await attack('handshakes that never end hold nobody up', target => dawdle(target, 2_000))
await attack('who comes and goes at any moment leaves nothing', target => comeAndGo(target, 2_000))
await attack('a flood reaches its bounds', (target, complain) => flood(target, complain, 3_000))
await attack('a topic per connection, and broadcasts to nobody, leave nothing', (target, complain) => explode(target, complain, 1_500))

await attack('mutated frames are answered as a model says that knows nothing of lib', async (target, complain) => {
  const seed = Number(process.env['FUZZ_SEED'] ?? Date.now() % 1_000_000)
  const verdicts = await fuzz(target, complain, { seed, frames: 6_000 })
  t.comment(`FUZZ_SEED=${seed}: ${JSON.stringify(verdicts)}`)
  t.ok(Object.keys(verdicts).length >= 10)
})

await attack('compressed frames in several segments, with mutated ones behind them, end nothing but their connections', async target => {
  const seed = Number(process.env['FUZZ_SEED'] ?? Date.now() % 1_000_000)
  t.comment(`FUZZ_SEED=${seed}`)
  await tatter(target, seed, 400)
})

await t.test('a server that stood still for longer than its heartbeats allow lets none of its members go', async t => {
  const members: Client[] = []
  for (let n = 0; n < 20; n++) members.push(await join(t, `127.0.0.1:${target.port}/watched/news`))
  let pings = 0
  for (const { socket } of members) socket.on('ping', () => { pings++ })
  for (let n = 0; n < 2; n++) {
    const before = pings
    await until(() => pings > before)
    await target.stall()
  }
  const after = pings
  await until(() => pings > after) // they are watched still
  t.match((await target.condition()).watched, { silent: 0, members: 20 })
  members[0]!.send({ type: 'message', data: { text: 'still here' } })
  for (const member of members) t.match(await member.next('message'), { data: { text: 'still here' } })
  for (const member of members) await member.close()
})

await t.test('the server under attack closes as any other, and nothing holds its process', async t => {
  t.equal(await target.close(), 0)
})

t.test('onLeave is told the code with which a violation was answered, and each is counted', async t => {
  const left: number[] = []
  const app = await createRooms(t, { prefix: '/lobby', websocket: { options: { perMessageDeflate: true } }, onLeave: (_session, { code }) => { left.push(code) } })
  const port = Number((await listen(app)).split(':')[1])
  const faults: string[] = []
  for (const violation of violations) {
    const before = left.length
    const { invalid } = app.rooms.stats()
    await violate({ port }, text => { faults.push(text) }, [violation])
    await app.rooms.kick({ topic: 'attacked' })
    if (left[before] !== violation.code || left.length !== before + 1) faults.push(`${violation.name}: onLeave is told ${left.slice(before).join(', ')} instead of ${violation.code}`)
    if (app.rooms.stats().invalid !== invalid + 1) faults.push(`${violation.name}: counted ${app.rooms.stats().invalid - invalid} times`)
  }
  t.same(faults, [])
})
