import { Backlog } from '../../lib/room/slow-members.ts'
import type { Ending, HubContext } from '../../lib/hub/context.ts'
import { createCounters } from '../../lib/hub/counters.ts'
import { Room } from '../../lib/room/room.ts'
import type { MemberSession } from '../../lib/session/session.ts'
import { Turn } from '../../lib/room/turn.ts'
import type { SlowRule } from '../../lib/topics/registry.ts'
import { fakeDefinition, fakeDelivery, fakeMember, type FakeMember, type FakeTransport } from '../helpers/fakes.ts'

export const nextTurn = () => new Promise(resolve => setImmediate(resolve))
/** A string of this many characters, as JSON. */
export const text = (length: number): string => JSON.stringify('x'.repeat(length))

/** A room of one topic with its slow members; the test flushes it. */
export function slowRoom (slow: Partial<SlowRule> = {}, ids = ['a', 'b']) {
  const counters = createCounters()
  const ended: [string, number][] = []
  const failures: Error[] = []
  const definition = fakeDefinition({ slow: { policy: 'close', bytes: 1_000, ...slow } })
  const room = new Room('news', definition, counters)
  const turn = new Turn(flush)
  const hub = {
    counters,
    end (session: MemberSession, { code }: Ending) {
      ended.push([session.id, code])
      session.state = 'closed'
      room.remove(session)
    },
    fail (error: Error) { failures.push(error) }
  } as unknown as HubContext
  const backlog = new Backlog(hub, turn)
  function flush (): void { backlog.judge(room, room.flush(turn.now)) }
  const join = (id: string, transport?: FakeTransport): FakeMember<any> => {
    const member = fakeMember(id, 'rooms.v1', transport ?? { bytesRead: 0 })
    Object.assign(member.session, { definition, room, announced: false })
    room.add(member.session)
    return member
  }
  const members = ids.map(id => join(id))
  let said = 0
  return {
    room,
    turn,
    backlog,
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
