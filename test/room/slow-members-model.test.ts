import fc from 'fast-check'
import t from 'tap'
import { SlowMembers } from '../../lib/room/slow-members.ts'
import type { Ending } from '../../lib/session/ending.ts'
import { Room } from '../../lib/room/room.ts'
import type { MemberSession } from '../../lib/session/session.ts'
import { textFrame } from '../../lib/transport/ws/frame.ts'
import { Turn } from '../../lib/room/turn.ts'
import type { SlowPolicy } from '../../types/index.ts'
import { textsIn } from '../helpers/wire.ts'
import { FakeStream, fakeDefinition, fakeDelivery, fakeMember, fakePorts } from '../helpers/fakes.ts'

const bound = 1_000

/** An event of the room; `to`, `who` and `except` are members. */
type Step =
  | { act: 'say', key: number | undefined, bytes: number, except: number | undefined }
  | { act: 'private', to: number, bytes: number }
  | { act: 'reads', who: number }
  | { act: 'stalls', who: number }
  | { act: 'presence' | 'join' | 'join held' | 'turn' }
  | { act: 'release', who: number }
  | { act: 'leave', who: number }

const who = fc.nat(5)
const bytes = fc.oneof(fc.nat(40), fc.nat(600))
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ act: fc.constant('say' as const), key: fc.option(fc.nat(2), { nil: undefined }), bytes, except: fc.option(who, { nil: undefined, freq: 4 }) }) },
  { weight: 3, arbitrary: fc.record({ act: fc.constant('private' as const), to: who, bytes }) },
  { weight: 3, arbitrary: fc.record({ act: fc.constant('reads' as const), who }) },
  { weight: 3, arbitrary: fc.record({ act: fc.constant('stalls' as const), who }) },
  { weight: 6, arbitrary: fc.record({ act: fc.constantFrom('turn' as const, 'turn' as const, 'turn' as const, 'presence' as const, 'join' as const) }) },
  { weight: 2, arbitrary: fc.oneof(fc.record({ act: fc.constant('join held' as const) }), fc.record({ act: fc.constant('release' as const), who })) },
  { weight: 1, arbitrary: fc.record({ act: fc.constant('leave' as const), who }) }
)

/** A TCP socket whose peer reads all at once or nothing. */
class Pipe extends FakeStream {
  waiting = 0
  stalled = false
  override write (bytes: Buffer, written?: any): boolean {
    if (this.stalled) this.waiting += bytes.length
    if (bytes.length === 0) process.nextTick(written)
    return super.write(bytes)
  }

  constructor () {
    super()
    Object.defineProperty(this, 'writableLength', { get: () => this.waiting })
    Object.defineProperty(this, 'writableNeedDrain', { get: () => this.waiting > 0 })
  }

  readAll (): void {
    this.stalled = false
    if (this.waiting === 0) return
    this.waiting = 0
    this.emit('drain')
  }
}

/** A member, and all messages for it in order. The policy determines which of them may be missing. */
interface Member {
  session: MemberSession
  pipe: Pipe
  due: { n: number, key: number | undefined }[]
  /** The latest message of each key; `undefined` if it was not for this member, which must then get no older one. */
  newest: Map<number | undefined, number | undefined>
  privates: number[]
  /** `onJoined` runs: `state` is to be sent before all other frames. */
  isHeld: boolean
  closed: boolean
}

async function play (policy: SlowPolicy, steps: Step[]): Promise<void> {
  const ports = fakePorts()
  const { counters } = ports
  const definition = fakeDefinition({ slow: { policy, bytes: bound } })
  const room = new Room<MemberSession>('news', definition, ports)
  const members: Member[] = []
  const turn = new Turn<Room<MemberSession>>(() => { flush() })
  const slow = new SlowMembers<MemberSession>(counters, turn, 30_000)
  function flush (): void { slow.applyPolicy(room, room.flush(turn.now)) }
  function leave (member: Member): void {
    member.closed = true
    member.session.state = 'closed'
    room.remove(member.session)
  }
  const join = (isHeld = false): void => {
    const pipe = new Pipe()
    const { session } = fakeMember(`m${members.length}`, 'rooms.v1', pipe)
    const end = ({ code }: Ending): void => {
      if (code !== 4201) throw new Error(`closed with ${code}`)
      leave(members.find(member => member.session === session)!)
    }
    Object.assign(session, { definition, room, end, fail (error: Error) { throw error } })
    members.push({ session, pipe, due: [], newest: new Map(), privates: [], isHeld, closed: false })
    room.add(session)
    if (isHeld) room.hold(session)
  }
  const member = (index: number): Member | undefined => {
    const found = members[index % members.length]
    return found?.closed === false ? found : undefined
  }
  const release = (member: Member | undefined): void => {
    if (member?.isHeld !== true || member.closed) return
    member.isHeld = false
    room.sendTo(member.session, textFrame('{"type":"state"}'), true)
    slow.release(room, member.session)
  }
  const end = async (): Promise<void> => {
    flush()
    turn.mark()
    await new Promise(resolve => setImmediate(resolve))
  }
  let n = 0
  let deliveries = 0
  join()
  join()
  for (const step of steps) {
    switch (step.act) {
      case 'say': {
        n++
        const excepted = step.except === undefined ? undefined : member(step.except)
        const json = JSON.stringify({ n, pad: 'x'.repeat(step.bytes) })
        const count = room.deliver(fakeDelivery(json, step.key === undefined ? undefined : `k${step.key}`), excepted?.session)
        const open = members.filter(({ closed }) => !closed)
        for (const one of open) {
          if (one !== excepted) one.due.push({ n, key: step.key })
          one.newest.set(step.key, one === excepted ? undefined : n)
        }
        if (count > open.length) throw new Error('more members were told than exist')
        deliveries += open.length - (excepted === undefined ? 0 : 1)
        if (room.isFull) flush()
        break
      }
      case 'private': {
        const to = member(step.to)
        if (to === undefined) break
        const frame = textFrame(JSON.stringify({ type: 'direct', p: ++n, pad: 'x'.repeat(step.bytes) }))
        if (!slow.admits(to.session, frame.length)) break
        room.sendTo(to.session, frame)
        slow.sent(to.session)
        to.privates.push(n)
        break
      }
      case 'reads': member(step.who)?.pipe.readAll(); break
      case 'stalls': {
        const one = member(step.who)
        if (one !== undefined) one.pipe.stalled = true
        break
      }
      case 'presence': room.announce(JSON.stringify({ type: 'presence', count: room.size })); break
      case 'join': if (members.length < 6) join(); break
      case 'join held': if (members.length < 6) join(true); break
      case 'release': release(member(step.who)); break
      case 'leave': {
        const one = member(step.who)
        if (one === undefined) break
        room.flushMember(one.session)
        leave(one)
        break
      }
      case 'turn': await end()
    }
  }
  for (const one of members) release(one)
  // All members read, so that none stays behind.
  for (const { pipe, closed } of members) if (!closed) pipe.readAll()
  for (let turns = 0; turns < 3; turns++) await end()
  if (room.lagging.size > 0) throw new Error('a slow member that has read does not come back')
  if (room.size !== members.filter(({ closed }) => !closed).length) throw new Error('the member count of the room is wrong')

  let missed = 0
  for (const { session, pipe, due, newest, privates, closed } of members) {
    const frames: any[] = textsIn(Buffer.concat(pipe.written)).map(text => JSON.parse(text))
    if (frames.findIndex(({ type }) => type === 'state') > 0) throw new Error(`${session.id} got other frames before its state`)
    const told = frames.filter(({ type }) => type === 'direct').map(({ p }) => p)
    if (JSON.stringify(told) !== JSON.stringify(closed ? privates.slice(0, told.length) : privates)) throw new Error(`${session.id} must get the private frames ${privates} and got ${told}`)
    const got: number[] = frames.filter(({ type }) => type === 'message').map(({ data }) => data.n)
    const places = got.map(number => due.findIndex(({ n }) => n === number))
    if (places.includes(-1)) throw new Error(`${session.id} got messages of others: ${got} of ${due.map(({ n }) => n)}`)
    if (places.some((place, index) => index > 0 && place <= places[index - 1]!)) throw new Error(`${session.id} got ${got}: not in order`)
    missed += due.length - got.length
    if (policy === 'close') {
      if (places.some((place, index) => place !== index)) throw new Error(`${session.id} got ${got}, with a gap`)
      if (!closed && got.length < due.length) throw new Error(`${session.id} is open, and has not got all messages`)
    }
    if (policy === 'drop') {
      let next = 0
      for (const frame of frames) {
        if (frame.type === 'gap') next += frame.count
        if (frame.type !== 'message') continue
        if (due[next]!.n !== frame.data.n) throw new Error(`${session.id} got ${frame.data.n} instead of ${due[next]!.n}`)
        next++
      }
      if (!closed && next !== due.length) throw new Error(`${session.id} knows of ${next} messages of ${due.length}`)
    }
    if (policy === 'latest' && !closed) {
      for (const [key, number] of newest) if (number !== undefined && !got.includes(number)) throw new Error(`${session.id} does not have the latest value of k${key}`)
    }
  }
  const counted = counters.dropped + counters.conflated
  // Messages after the end of a member are not counted; messages dropped or replaced before are.
  if (counted > missed) throw new Error(`${counted} messages are counted as missed instead of ${missed}`)
  if (members.every(({ closed }) => !closed) && policy !== 'close' && counted !== missed) throw new Error(`${missed} of ${deliveries} were missed, and ${counted} are counted`)
}

for (const policy of ['close', 'drop', 'latest'] as const) {
  t.test(`${policy}: in each sequence of events each member gets its messages in order, and is told of missing ones`, async t => {
    await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 120, size: 'max' }), steps => play(policy, steps)), { numRuns: Number(process.env.SLOW_RUNS ?? 300), interruptAfterTimeLimit: 60_000 })
    t.pass('a failure prints the seed of fast-check')
  })
}
