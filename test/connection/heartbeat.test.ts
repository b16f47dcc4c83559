import t, { type Test } from 'tap'
import type { Holder } from '../../lib/internals.ts'
import { Heartbeat, type HeartbeatSettings } from '../../lib/connection/heartbeat.ts'
import type { WebSocketFrames } from '../../lib/transport/websocket-frames.ts'
import { resolveOptions } from '../../lib/options.ts'
import { at, fakeMember, type FakeMember } from '../helpers/fakes.ts'

/** A heartbeat with a clock under the control of the test: interval and timeout 800 ms, a sweep every 100 ms, all from time 0. */
function beat (members: FakeMember[], heartbeat: HeartbeatSettings<never>['heartbeat'] = { interval: 800, timeout: 800 }, handshake = 800, unfinished = 30_000) {
  const connections = new Set(members.map(({ connection }) => connection))
  const silent: string[] = []
  const late: string[] = []
  const overdue: string[] = []
  const gone: string[] = []
  const swept: number[] = []
  const real = globalThis.setInterval
  let sweep = (): void => {}
  let every = 0
  const heart = new Heartbeat(connections, {
    heartbeat,
    handshake,
    unfinished,
    overdue: ({ session }) => { overdue.push(session.id) },
    gone: ({ session }) => { gone.push(session.id) },
    late: ({ session }) => { late.push(session.id) },
    silent: ({ session }) => { silent.push(session.id) },
    swept: (now) => { swept.push(now) }
  })
  globalThis.setInterval = ((callback: () => void, milliseconds: number) => {
    sweep = callback
    every = milliseconds
    return { unref () { return 7 } }
  }) as never
  try {
    at(0, () => { heart.start() })
  } finally {
    globalThis.setInterval = real
  }
  let now = 0
  /** Sweeps until that time; `each` runs before every sweep. */
  const run = (until: number, each: (now: number) => void = () => {}): void => {
    while (now + every <= until) {
      now += every
      each(now)
      at(now, sweep)
    }
  }
  /** Stalls the process until that time. */
  const stall = (until: number): void => {
    now = until
    at(now, sweep)
  }
  return { connections, gone, silent, late, overdue, swept, run, stall, every, stalledFor: (at: number) => heart.stalledFor(at) }
}

/** A reason for not reading. */
const reason = {}

/** A member whose connection was opened at time 0. */
function member (id: string, stream: { bytesRead?: number } = { bytesRead: 0 }): FakeMember {
  const fake = at(0, () => fakeMember(id, 'rooms.v1', stream))
  return fake
}

t.test('a mute peer is pinged once and ended within interval + timeout', async t => {
  const mute = member('mute')
  const { silent, run } = beat([mute])
  run(500)
  t.equal(mute.socket.pings, 0, 'no ping before the interval is nearly over')
  run(800)
  t.equal(mute.socket.pings, 1)
  run(1_200)
  t.equal(mute.socket.pings, 1)
  t.same(silent, [])
  run(1_600)
  t.same(silent.slice(0, 1), ['mute'])
})

t.test('with the defaults a half-open peer is ended within 35 seconds, and with the shortest useful settings within two', async t => {
  const { heartbeat, limits } = resolveOptions({})
  for (const [settings, most] of [[heartbeat, 35_000], [{ interval: 1_200, timeout: 800 }, 2_000]] as const) {
    const open = member('open', { bytesRead: 500 })
    const { silent, run } = beat([open], settings, limits.handshake)
    run(most)
    t.same(silent.slice(0, 1), ['open'])
  }
})

t.test('a peer that answers pings stays, and one that sends is never pinged', async t => {
  const answering = member('answering')
  const speaking = member('speaking')
  const { silent, run } = beat([answering, speaking])
  let answered = 0
  run(20_000, () => {
    speaking.stream.bytesRead!++
    if (answering.socket.pings > answered) {
      answered = answering.socket.pings
      answering.stream.bytesRead! += 6
    }
  })
  t.same(silent, [])
  t.equal(speaking.socket.pings, 0)
  t.ok(answering.socket.pings > 10)
})

t.test('a byte just before the end keeps a peer for another round', async t => {
  const peer = member('peer')
  const { silent, run } = beat([peer])
  run(1_200)
  peer.stream.bytesRead = 1
  run(1_300)
  t.equal(peer.connection.pingedAt, 0)
  run(2_000)
  t.same(silent, [])
  t.equal(peer.socket.pings, 2)
  run(2_900)
  t.ok(silent.includes('peer'))
})

t.test('an in-process stream cannot go silent', async t => {
  const inside = member('inside', {})
  const { silent, run } = beat([inside])
  run(5_000)
  t.same(silent, [])
  t.equal(inside.socket.pings, 0)
})

/** Checks that the silence of a peer that was pinged once counts again from this time on: a second ping, and then the end. */
function startsAnew (t: Test, peer: FakeMember, { silent, run }: Pick<ReturnType<typeof beat>, 'silent' | 'run'>, from: number): void {
  run(from + 500)
  t.equal(peer.socket.pings, 1)
  run(from + 800)
  t.equal(peer.socket.pings, 2)
  run(from + 1_600)
  t.ok(silent.includes('peer'))
}

t.test('while reading is paused silence does not count, and it starts again afterwards', async t => {
  const peer = member('peer')
  const { silent, run } = beat([peer])
  run(800)
  t.equal(peer.socket.pings, 1)
  peer.connection.holdReading(reason)
  run(10_000)
  t.same(silent, [])
  at(10_050, () => { peer.connection.releaseReading(reason) })
  t.match(peer.connection, { seenAt: 10_050, pingedAt: 0 })
  startsAnew(t, peer, { silent, run }, 10_100)
})

t.test('after a stall of the process silence does not count for one interval', async t => {
  const peer = member('peer')
  const { silent, run, stall } = beat([peer])
  run(800)
  t.equal(peer.socket.pings, 1)
  stall(60_000)
  t.same(silent, [], 'its answer may be unread')
  startsAnew(t, peer, { silent, run }, 60_000)
})

t.test('a peer that does not answer the close frame is terminated after five seconds', async t => {
  for (const heartbeat of [{ interval: 800, timeout: 800 }, false] as const) {
    const peer = member('peer')
    const { silent, late, run, connections } = beat([peer], heartbeat)
    run(1_000, () => { peer.stream.bytesRead!++ })
    at(1_000, () => { peer.connection.sessionEnded(peer.session, { code: 1000, reason: 'normal', by: 'server' }) })
    peer.session.state = 'closed'
    run(5_900)
    t.equal(peer.socket.terminations, 0)
    run(6_100)
    t.ok(peer.socket.terminations > 0)
    t.same([...silent, ...late], [], 'late close handshakes do not count as silence')
    connections.delete(peer.connection)
  }
})

t.test('a join that takes too long is refused, with or without a heartbeat', async t => {
  for (const heartbeat of [{ interval: 800, timeout: 800 }, false] as const) {
    const joining = member('joining')
    const open = member('open')
    joining.session.state = 'joining'
    const { late, run } = beat([joining, open], heartbeat, 400)
    run(350)
    t.same(late, [])
    run(450)
    t.same([...new Set(late)], ['joining'])
  }
})

t.test('a stall of the process counts neither for the time of a join nor for that of a close handshake', async t => {
  for (const heartbeat of [{ interval: 800, timeout: 800 }, false] as const) {
    const [joining, closing] = [member('joining'), member('closing')]
    joining.session.state = 'joining'
    const { late, run, stall } = beat([joining, closing], heartbeat)
    run(300)
    at(300, () => { closing.connection.sessionEnded(closing.session, { code: 1000, reason: 'normal', by: 'server' }) })
    closing.session.state = 'closed'
    stall(60_300)
    run(60_600)
    t.same(late, [])
    run(61_000)
    t.same([...new Set(late)], ['joining'])
    run(64_900)
    t.equal(closing.socket.terminations, 0)
    run(65_300)
    t.ok(closing.socket.terminations > 0)
  }
})

t.test('without a heartbeat no peer is pinged', async t => {
  const mute = member('mute')
  const { silent, run } = beat([mute], false)
  run(60_000)
  t.equal(mute.socket.pings, 0)
  t.same(silent, [])
})

t.test('the sweep interval is a fraction of the shortest watched time', async t => {
  t.equal(beat([], { interval: 25_000, timeout: 10_000 }, 10_000).every, 625)
  t.equal(beat([], { interval: 10, timeout: 10 }, 100).every, 1.25)
  t.equal(beat([], false, 100).every, 12.5)
  t.equal(beat([], false, 800, 80).every, 10)
})

/** The transport of a member, which has the receiver's holder. */
function holderOf ({ connection }: FakeMember): WebSocketFrames {
  return connection.transport as WebSocketFrames
}

/** The fields of a receiver that the heartbeat reads. */
function holding (bytes: number): { -readonly [member in keyof Holder]: Holder[member] } {
  return { _buffers: [], _bufferedBytes: bytes, _fragments: [], _messageLength: 0, _fragmented: 0, _state: 0 }
}

t.test('a message that does not end in time is overdue, with or without a heartbeat', async t => {
  for (const heartbeat of [false, { interval: 800, timeout: 800 }] as const) {
    const [peer, whole, unknown] = [member('peer'), member('whole'), member('unknown')] as [FakeMember, FakeMember, FakeMember]
    const holder = holderOf(peer).holder = holding(0)
    holderOf(whole).holder = holding(0)
    const beats = beat([peer, whole, unknown], heartbeat, 800, 800)
    const alive = (): void => { for (const { stream } of [peer, whole, unknown]) stream.bytesRead!++ }
    beats.run(300, alive)
    holder._state = 4 // the header of a frame has arrived
    beats.run(1_100, alive)
    t.same(beats.overdue, [], 'first seen at 400')
    beats.run(1_200, alive)
    t.same(beats.overdue, ['peer'])
    t.same(beats.silent, [])
  }
})

t.test('a message that ends is not overdue, and the next one has its own time; control frames between fragments do not restart it', async t => {
  const peer = member('peer')
  const { connection } = peer
  const holder = holderOf(peer).holder = holding(0)
  const beats = beat([peer], false, 800, 800)
  beats.run(5_000, now => {
    holder._bufferedBytes = 1
    if (now % 700 === 0) connection.unfinishedAt = 0 // as each message does
  })
  t.same(beats.overdue, [])
  holder._bufferedBytes = 0
  beats.run(5_100)
  beats.run(6_000, now => { holder._fragmented = now % 200 === 0 ? 1 : 2 })
  t.same(beats.overdue.length, 1)
})

t.test('the time of a message stops while reading is paused, and during a stall of the process', async t => {
  const peer = member('peer')
  const { connection } = peer
  holderOf(peer).holder = holding(1)
  const beats = beat([peer], false, 800, 800)
  beats.run(500)
  at(500, () => { connection.holdReading(reason) })
  beats.run(10_000)
  at(10_050, () => { connection.releaseReading(reason) })
  beats.run(10_200)
  beats.stall(20_200)
  beats.run(20_300)
  t.same(beats.overdue, [], '400 before the pause, 150 up to the stall, 100 for the sweep that noticed it, and 100 after it')
  beats.run(20_400)
  t.same(beats.overdue, ['peer'])
})

t.test('a pause before the begin of a message does not count for it', async t => {
  const peer = member('peer')
  const { connection } = peer
  const holder = holderOf(peer).holder = holding(0)
  const beats = beat([peer], false, 800, 800)
  beats.run(100)
  at(100, () => { connection.holdReading(reason) })
  beats.run(500)
  at(500, () => { connection.releaseReading(reason) })
  at(600, () => { connection.stalledFor(100, 600) })
  t.equal(connection.unfinishedAt, 0)
  holder._bufferedBytes = 1
  beats.run(1_400)
  t.same(beats.overdue.length, 1)
})

t.test('a stopped heartbeat pings no peer', async t => {
  const peer = fakeMember('peer')
  const heart = new Heartbeat(new Set([peer.connection]), { heartbeat: { interval: 10, timeout: 10 }, handshake: 100, unfinished: 100, gone () {}, late () {}, overdue () {}, silent () {}, swept () {} })
  heart.start()
  heart.stop()
  await new Promise(resolve => setTimeout(resolve, 60))
  t.equal(peer.socket.pings, 0)
})

t.test('each sweep calls swept, even without connections', async t => {
  const beats = beat([], false)
  beats.run(250)
  t.same(beats.swept, [100, 200])
})

t.test('a stall of the process is noted for each connection, because its frames had to wait', async t => {
  const [one, two] = [member('one'), member('two')]
  const beats = beat([one, two], false)
  beats.run(100)
  t.equal(beats.stalledFor(250), 0)
  t.equal(beats.stalledFor(300), 0, 'one missed sweep')
  t.equal(beats.stalledFor(301), 101)
  t.equal(beats.stalledFor(1_200), 1_000)
  beats.stall(1_200)
  t.same([one, two].map(({ connection }) => connection.withheld), [1_000, 1_000])
  beats.run(1_400)
  t.equal(beats.stalledFor(1_450), 0, 'the event loop runs again')
})

t.test('a noted wait is cleared once nothing has arrived for one sweep, and never while reading is paused', async t => {
  for (const heartbeat of [{ interval: 800, timeout: 800 }, false] as const) {
    for (const stream of [{ bytesRead: 0 }, {}]) {
      const [quiet, reading, paused, slow] = [member('quiet', stream), member('reading'), member('paused'), member('slow')]
      const beats = beat([quiet, reading, paused, slow], heartbeat)
      beats.run(100)
      at(150, () => { paused.connection.holdReading(reason) })
      beats.stall(1_200)
      for (const { connection } of [quiet, reading, paused, slow]) connection.creditedUntil = 60_000
      reading.connection.withheld = 0
      const noted = () => [quiet, reading, paused, slow].map(({ connection }) => [connection.withheld, connection.creditedUntil])
      const comes = () => {
        reading.stream.bytesRead!++
        slow.stream.bytesRead!++
      }
      beats.run(1_300, comes)
      t.same(noted(), [[0, 0], [0, 60_000], [1_000, 60_000], [1_000, 60_000]])
      beats.run(2_200, comes)
      t.same(noted(), [[0, 0], [0, 60_000], [1_000, 60_000], [0, 60_000]], 'a frame that arrives byte by byte does not extend the wait')
      beats.run(2_300)
      t.same(noted(), [[0, 0], [0, 0], [1_000, 60_000], [0, 0]])
      at(2_350, () => { paused.connection.releaseReading(reason) })
      beats.run(2_400)
      t.match(noted()[2], [3_200, 60_000], 'waiting bytes are still to be read')
      beats.run(2_500)
      t.same(noted()[2], [0, 0])
    }
  }
})

t.test('a peer that ended its side without a close frame but keeps its connection leaves at the next sweep, and is terminated after 5 s', async t => {
  const peer = fakeMember('peer')
  const beats = beat([peer], false)
  peer.socket.readyState = 2
  beats.run(100)
  t.same(beats.gone, ['peer'])
  beats.run(5_000)
  t.equal(peer.socket.terminations, 0)
  beats.run(5_200)
  t.ok(peer.socket.terminations > 0)
  t.same(beats.gone, ['peer'], 'once')
})
