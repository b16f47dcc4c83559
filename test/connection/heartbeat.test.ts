import t from 'tap'
import { Connection } from '../../lib/connection/connection.ts'
import type { Holder } from '../../lib/internals.ts'
import { Heartbeat, type HeartbeatSettings } from '../../lib/connection/heartbeat.ts'
import type { MemberSession } from '../../lib/session/session.ts'
import { textFrame } from '../../lib/transport/ws/frame.ts'
import { resolveOptions } from '../../lib/options.ts'
import { FakeSocket, at, fakeMember, type FakeMember } from '../helpers/fakes.ts'

/** A heartbeat whose clock is moved by hand: interval and timeout 800 ms, a sweep every 100 ms, all from time 0. */
function beat (members: FakeMember[], heartbeat: HeartbeatSettings['heartbeat'] = { interval: 800, timeout: 800 }, handshake = 800, unfinished = 30_000) {
  const links = new Set(members.map(({ session }) => session))
  const silent: string[] = []
  const late: string[] = []
  const overdue: string[] = []
  const gone: string[] = []
  const swept: number[] = []
  const real = globalThis.setInterval
  let sweep = (): void => {}
  let every = 0
  const heart = new Heartbeat(links, {
    heartbeat,
    handshake,
    unfinished,
    overdue: ({ id }) => { overdue.push(id) },
    gone: ({ id }) => { gone.push(id) },
    late: ({ id }) => { late.push(id) },
    silent: ({ id }) => { silent.push(id) },
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
  /** Sweeps until then; `each` happens before every sweep. */
  const run = (until: number, each: (now: number) => void = () => {}): void => {
    while (now + every <= until) {
      now += every
      each(now)
      at(now, sweep)
    }
  }
  /** The process stood still until then. */
  const stall = (until: number): void => {
    now = until
    at(now, sweep)
  }
  return { links, gone, silent, late, overdue, swept, run, stall, every, stalledFor: (at: number) => heart.stalledFor(at) }
}

/** A member whose connection was opened at time 0. */
function member (id: string, transport: { bytesRead?: number } = { bytesRead: 0 }): FakeMember {
  const fake = at(0, () => fakeMember(id, 'rooms.v1', transport))
  return fake
}

t.test('a mute peer is pinged once and ended within interval + timeout', async t => {
  const mute = member('mute')
  const { silent, run } = beat([mute])
  run(500)
  t.equal(mute.socket.pings, 0, 'not before the interval is about to end')
  run(800)
  t.equal(mute.socket.pings, 1)
  run(1_200)
  t.equal(mute.socket.pings, 1)
  t.same(silent, [])
  run(1_600)
  t.same(silent.slice(0, 1), ['mute'])
})

t.test('with the defaults a half-open peer is ended within 35 seconds, and with the shortest useful times within two', async t => {
  const { heartbeat, limits } = resolveOptions({})
  for (const [settings, most] of [[heartbeat, 35_000], [{ interval: 1_200, timeout: 800 }, 2_000]] as const) {
    const open = member('open', { bytesRead: 500 })
    const { silent, run } = beat([open], settings, limits.handshake)
    run(most)
    t.same(silent.slice(0, 1), ['open'])
  }
})

t.test('a peer that answers pings stays, and one that speaks is never pinged', async t => {
  const answering = member('answering')
  const speaking = member('speaking')
  const { silent, run } = beat([answering, speaking])
  let answered = 0
  run(20_000, () => {
    speaking.transport.bytesRead!++
    if (answering.socket.pings > answered) {
      answered = answering.socket.pings
      answering.transport.bytesRead! += 6
    }
  })
  t.same(silent, [])
  t.equal(speaking.socket.pings, 0)
  t.ok(answering.socket.pings > 10)
})

t.test('a byte a moment before the end saves a peer for another round', async t => {
  const peer = member('peer')
  const { silent, run } = beat([peer])
  run(1_200)
  peer.transport.bytesRead = 1
  run(1_300)
  t.equal(peer.session.connection.pingedAt, 0)
  run(2_000)
  t.same(silent, [])
  t.equal(peer.socket.pings, 2)
  run(2_900)
  t.ok(silent.includes('peer'))
})

t.test('a stream inside the process cannot go silent', async t => {
  const inside = member('inside', {})
  const { silent, run } = beat([inside])
  run(5_000)
  t.same(silent, [])
  t.equal(inside.socket.pings, 0)
})

t.test('while reading is paused silence does not count, and it starts anew after that', async t => {
  const peer = member('peer')
  const { silent, run } = beat([peer])
  run(800)
  t.equal(peer.socket.pings, 1)
  peer.session.connection.pause()
  run(10_000)
  t.same(silent, [])
  at(10_050, () => { peer.session.connection.resume() })
  t.match(peer.session.connection, { seenAt: 10_050, pingedAt: 0 })
  run(10_600)
  t.equal(peer.socket.pings, 1)
  run(10_900)
  t.equal(peer.socket.pings, 2)
  run(11_700)
  t.ok(silent.includes('peer'))
})

t.test('after a stall of the process silence does not count for one interval', async t => {
  const peer = member('peer')
  const { silent, run, stall } = beat([peer])
  run(800)
  t.equal(peer.socket.pings, 1)
  stall(60_000)
  t.same(silent, [], 'its answer may be waiting to be read')
  run(60_500)
  t.equal(peer.socket.pings, 1)
  run(60_800)
  t.equal(peer.socket.pings, 2)
  run(61_600)
  t.ok(silent.includes('peer'))
})

t.test('a peer that does not answer the close frame is cut after five seconds', async t => {
  for (const heartbeat of [{ interval: 800, timeout: 800 }, false] as const) {
    const peer = member('peer')
    const { silent, late, run, links } = beat([peer], heartbeat)
    run(1_000, () => { peer.transport.bytesRead!++ })
    at(1_000, () => { peer.session.connection.close(1000, 'normal') })
    peer.session.state = 'closed'
    run(5_900)
    t.equal(peer.socket.terminations, 0)
    run(6_100)
    t.ok(peer.socket.terminations > 0)
    t.same([...silent, ...late], [], 'it is not silent, but late')
    links.delete(peer.session)
  }
})

t.test('a join that takes too long is refused, heartbeat or not', async t => {
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

t.test('a stall of the process does not count for the time of a join, nor for that of the answer to a close frame', async t => {
  for (const heartbeat of [{ interval: 800, timeout: 800 }, false] as const) {
    const [joining, closing] = [member('joining'), member('closing')]
    joining.session.state = 'joining'
    const { late, run, stall } = beat([joining, closing], heartbeat)
    run(300)
    at(300, () => { closing.session.connection.close(1000, 'normal') })
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

t.test('without a heartbeat nobody is pinged', async t => {
  const mute = member('mute')
  const { silent, run } = beat([mute], false)
  run(60_000)
  t.equal(mute.socket.pings, 0)
  t.same(silent, [])
})

t.test('sweeps are a fraction of the shortest time that is watched', async t => {
  t.equal(beat([], { interval: 25_000, timeout: 10_000 }, 10_000).every, 625)
  t.equal(beat([], { interval: 10, timeout: 10 }, 100).every, 1.25)
  t.equal(beat([], false, 100).every, 12.5)
  t.equal(beat([], false, 800, 80).every, 10)
})

/** The members of a receiver that the heartbeat looks at. */
function holding (bytes: number): { -readonly [member in keyof Holder]: Holder[member] } {
  return { _buffers: [], _bufferedBytes: bytes, _fragments: [], _messageLength: 0, _fragmented: 0, _state: 0 }
}

t.test('a message that does not end in its time is overdue, with a heartbeat or without', async t => {
  for (const heartbeat of [false, { interval: 800, timeout: 800 }] as const) {
    const [peer, whole, unknown] = [member('peer'), member('whole'), member('unknown')] as [FakeMember, FakeMember, FakeMember]
    const holder = peer.session.connection.holder = holding(0)
    whole.session.connection.holder = holding(0)
    const beats = beat([peer, whole, unknown], heartbeat, 800, 800)
    const alive = (): void => { for (const { transport } of [peer, whole, unknown]) transport.bytesRead!++ }
    beats.run(300, alive)
    holder._state = 4 // the header of a frame has come
    beats.run(1_100, alive)
    t.same(beats.overdue, [], 'seen at 400')
    beats.run(1_200, alive)
    t.same(beats.overdue, ['peer'])
    t.same(beats.silent, [])
  }
})

t.test('a message that ends is not overdue, and the next one has its own time; frames between fragments end nothing', async t => {
  const peer = member('peer')
  const { connection } = peer.session
  const holder = connection.holder = holding(0)
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

t.test('the time of a message stands still while reading is paused, and while the process does', async t => {
  const peer = member('peer')
  const { connection } = peer.session
  connection.holder = holding(1)
  const beats = beat([peer], false, 800, 800)
  beats.run(500)
  at(500, () => { connection.pause() })
  beats.run(10_000)
  at(10_050, () => { connection.resume() })
  beats.run(10_200)
  beats.stall(20_200)
  beats.run(20_300)
  t.same(beats.overdue, [], '400 before the pause, 150 up to the stall, 100 for the look in which it was, and 100 after it')
  beats.run(20_400)
  t.same(beats.overdue, ['peer'])
})

t.test('a pause before a message began does not count for it', async t => {
  const peer = member('peer')
  const { connection } = peer.session
  const holder = connection.holder = holding(0)
  const beats = beat([peer], false, 800, 800)
  beats.run(100)
  at(100, () => { connection.pause() })
  beats.run(500)
  at(500, () => { connection.resume() })
  at(600, () => { connection.stalledFor(100, 600) })
  t.equal(connection.unfinishedAt, 0)
  holder._bufferedBytes = 1
  beats.run(1_400)
  t.same(beats.overdue.length, 1)
})

t.test('a stopped heartbeat looks at nobody any more', async t => {
  const peer = fakeMember('peer')
  const heart = new Heartbeat(new Set([peer.session]), { heartbeat: { interval: 10, timeout: 10 }, handshake: 100, unfinished: 100, gone () {}, late () {}, overdue () {}, silent () {}, swept () {} })
  heart.start()
  heart.stop()
  await new Promise(resolve => setTimeout(resolve, 60))
  t.equal(peer.socket.pings, 0)
})

t.test('who looks at all, looks at what else is to be looked at', async t => {
  const beats = beat([], false)
  beats.run(250)
  t.same(beats.swept, [100, 200])
})

t.test('a stall of the process is noted with every connection, since what it sent had to wait', async t => {
  const [one, two] = [member('one'), member('two')]
  const beats = beat([one, two], false)
  beats.run(100)
  t.equal(beats.stalledFor(250), 0)
  t.equal(beats.stalledFor(300), 0, 'one look that was missed')
  t.equal(beats.stalledFor(301), 101)
  t.equal(beats.stalledFor(1_200), 1_000)
  beats.stall(1_200)
  t.same([one, two].map(({ session }) => session.connection.withheld), [1_000, 1_000])
  beats.run(1_400)
  t.equal(beats.stalledFor(1_450), 0, 'it turns again')
})

t.test('a wait is accounted for no more once nothing has come for one look, and never while reading is paused', async t => {
  for (const heartbeat of [{ interval: 800, timeout: 800 }, false] as const) {
    for (const transport of [{ bytesRead: 0 }, {}]) {
      const [quiet, reading, paused, slow] = [member('quiet', transport), member('reading'), member('paused'), member('slow')]
      const beats = beat([quiet, reading, paused, slow], heartbeat)
      beats.run(100)
      at(150, () => { paused.session.connection.pause() })
      beats.stall(1_200)
      for (const { session } of [quiet, reading, paused, slow]) session.creditedUntil = 60_000
      reading.session.connection.withheld = 0
      const noted = () => [quiet, reading, paused, slow].map(({ session }) => [session.connection.withheld, session.creditedUntil])
      const comes = () => {
        reading.transport.bytesRead!++
        slow.transport.bytesRead!++
      }
      beats.run(1_300, comes)
      t.same(noted(), [[0, 0], [0, 60_000], [1_000, 60_000], [1_000, 60_000]])
      beats.run(2_200, comes)
      t.same(noted(), [[0, 0], [0, 60_000], [1_000, 60_000], [0, 60_000]], 'a frame that comes byte by byte keeps it no longer than it was')
      beats.run(2_300)
      t.same(noted(), [[0, 0], [0, 0], [1_000, 60_000], [0, 0]])
      at(2_350, () => { paused.session.connection.resume() })
      beats.run(2_400)
      t.match(noted()[2], [3_200, 60_000], 'what has waited is still to be read')
      beats.run(2_500)
      t.same(noted()[2], [0, 0])
    }
  }
})

t.test('the time for which reading is paused is noted', async t => {
  const { session: { connection } } = member('peer')
  at(1_000, () => { connection.pause() })
  at(1_500, () => { connection.pause() })
  at(3_000, () => { connection.resume() })
  t.equal(connection.withheld, 2_000)
  at(5_000, () => { connection.pause() })
  at(5_500, () => { connection.resume() })
  t.equal(connection.withheld, 2_500)
})

t.test('a connection closes once, and reads on for the answer', async t => {
  const socket = new FakeSocket()
  const connection = new Connection(socket, { bytesRead: 3 }, 'rooms.v1', '10.0.0.1')
  t.match(connection, { mode: 'rooms.v1', address: '10.0.0.1', bytesRead: 3, bufferedBytes: 0, isOpen: true, isPaused: false })
  t.equal(new Connection(socket, undefined, 'rooms.v1', '10.0.0.1').bytesRead, undefined, 'nor where ws does not tell what it stands on')
  connection.pause()
  t.ok(connection.isPaused)
  connection.close(4005, 'kicked')
  connection.close(1000, 'normal')
  t.same(socket.closes, [{ code: 4005, reason: 'kicked' }])
  t.notOk(connection.isPaused)
  connection.send(textFrame('', Buffer.from('late')))
  t.same(socket.sent, [], 'after the close frame nothing leaves')
  connection.terminate()
  t.equal(socket.terminations, 1)
})

t.test('to a connection that is to be closed for not reading nothing more is queued', async t => {
  const { session, socket } = fakeMember('a') as { session: MemberSession, socket: FakeSocket }
  session.connection.send(textFrame('', Buffer.from('1')))
  session.connection.condemned = true
  session.connection.send(textFrame('', Buffer.from('2')))
  t.same(socket.sent, ['1'])
})

t.test('a peer that has ended its side without a close frame and holds on to its connection is out at the next look, and cut after 5 s', async t => {
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
