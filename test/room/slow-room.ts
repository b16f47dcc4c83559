import { SlowMembers } from '../../lib/room/slow-members.ts'
import { Room } from '../../lib/room/room.ts'
import type { MemberSession } from '../../lib/session/session.ts'
import type { Ending } from '../../lib/session/ending.ts'
import { Turn } from '../../lib/room/turn.ts'
import type { SlowRule } from '../../lib/topics/registry.ts'
import { fakeDefinition, fakeDelivery, fakeMember, fakePorts, type FakeMember, type FakeSession, type FakeStream } from '../helpers/fakes.ts'

export const nextTurn = () => new Promise(resolve => setImmediate(resolve))
/** A string of this many characters, as JSON. */
export const text = (length: number): string => JSON.stringify('x'.repeat(length))

/** A room of one topic with its slow members; the test flushes it. */
export function slowRoom (rule: Partial<SlowRule> = {}, ids = ['a', 'b']) {
  const ports = fakePorts()
  const { counters } = ports
  const ended: [string, number][] = []
  const failures: Error[] = []
  const definition = fakeDefinition({ slow: { policy: 'close', bytes: 1_000, ...rule } })
  const room = new Room<MemberSession>('news', definition, ports)
  const turn = new Turn<Room<MemberSession>>(flush)
  const slow = new SlowMembers<MemberSession>(counters, turn, 30_000)
  const end = (session: FakeSession, code: number): void => {
    ended.push([session.id, code])
    session.state = 'closed'
    room.remove(session)
  }
  function flush (): void { slow.applyPolicy(room, room.flush(turn.now)) }
  const join = (id: string, stream?: FakeStream): FakeMember<any> => {
    const member = fakeMember(id, 'rooms.v1', stream ?? { bytesRead: 0 })
    const { session } = member
    Object.assign(session, { definition, room, end: ({ code }: Ending) => { end(session, code) }, fail: (error: Error) => { failures.push(error) } })
    room.add(member.session)
    return member
  }
  const members = ids.map(id => join(id))
  let said = 0
  return {
    room,
    turn,
    slow,
    counters,
    ended,
    failures,
    members,
    join,
    flush,
    /** Delivers one message, which waits for a flush. Its data is its number by default. */
    say (json = String(++said), key?: string, excepted?: MemberSession) {
      room.feed.advance({ epoch: 'e', offset: (room.feed.position?.offset ?? 0) + 1 })
      const delivery = fakeDelivery(json, key)
      room.deliver(delivery, excepted)
    },
    async turnEnds () {
      flush()
      turn.mark()
      await nextTurn()
    }
  }
}

/** The frames that a member received, in short form. */
export function got ({ socket }: FakeMember<any>): unknown[] {
  return socket.sent.map((sent: string) => {
    const frame = JSON.parse(sent)
    return frame.type === 'message' ? frame.data : frame
  })
}
