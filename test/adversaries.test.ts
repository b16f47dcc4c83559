import t, { type Test } from 'tap'
import { bomb, comeAndGo, dawdle, explode, flood, mishandshake, stretch, talkAfterClose, tatter, violate } from './adversaries/attacks.ts'
import { fuzz } from './adversaries/fuzz.ts'
import { startPairs, startTarget, type Target } from './adversaries/target.ts'
import { violations } from './adversaries/violations.ts'
import { createRooms, join, listen, until, type Client } from './helpers/app.ts'

const target = await startTarget(t)
const pairs = startPairs(t)

/**
 * Runs an attack against a server in a process of its own, beside two pairs of well-behaved members, one of them in the attacked topic. During and after the attack
 * these members must not lose a message, the process must not fail, and no state of the attacker may remain.
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

await attack('violations of RFC 6455 are closed with the code that the RFC assigns to them', async (target, complain) => {
  await violate(target, complain)
  await stretch(target, complain)
  await talkAfterClose(target, complain)
})
await attack('hostile JSON is taken or refused, and affects no other member', bomb)
await attack('malformed handshakes are answered with their status', mishandshake)
await attack('handshakes that never end delay no other client', target => dawdle(target, 1_000))
await attack('clients that connect and leave at any moment leave no state behind', target => comeAndGo(target, 1_000))
await attack('a flood meets its limits', (target, complain) => flood(target, complain, 1_500))
await attack('a topic per connection, and broadcasts to topics without members, leave no state behind', (target, complain) => explode(target, complain, 1_500))

await attack('mutated frames are answered as a model predicts that does not use lib', async (target, complain) => {
  const seed = Number(process.env['FUZZ_SEED'] ?? Date.now() % 1_000_000)
  const verdicts = await fuzz(target, complain, { seed, frames: 2_500 })
  t.comment(`FUZZ_SEED=${seed}: ${JSON.stringify(verdicts)}`)
  t.ok(Object.keys(verdicts).length >= 10)
})

await attack('mutated frames for several topics are answered as that model predicts', async (target, complain) => {
  const seed = Number(process.env['FUZZ_SEED'] ?? Date.now() % 1_000_000)
  const verdicts = await fuzz(target, complain, { seed, frames: 1_500, multiplexed: true })
  t.comment(`FUZZ_SEED=${seed}: ${JSON.stringify(verdicts)}`)
  t.ok(Object.keys(verdicts).length >= 10)
})

await attack('compressed frames in several segments, with mutated frames behind them, end only their own connections', async target => {
  const seed = Number(process.env['FUZZ_SEED'] ?? Date.now() % 1_000_000)
  t.comment(`FUZZ_SEED=${seed}`)
  await tatter(target, seed, 400)
})

await t.test('a server that stalled for longer than its heartbeats allow ends no member', async t => {
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
  await until(() => pings > after) // the heartbeat still watches the members
  t.match((await target.condition()).watched, { silent: 0, members: 20 })
  members[0]!.send({ type: 'message', data: { text: 'still here' } })
  for (const member of members) t.match(await member.next('message'), { data: { text: 'still here' } })
  for (const member of members) await member.close()
})

await t.test('the server under attack closes like any other, and its process exits', async t => {
  t.equal(await target.close(), 0)
})

t.test('onLeave gets the code with which a violation was answered, and each violation is counted', async t => {
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
