import type { FastifyInstance } from 'fastify'
import t from 'tap'
import { KeptValues } from '../../lib/brokers/kept-values.ts'
import { Mids } from '../../lib/feed/mids.ts'
import { Replay, type ReplayPlan } from '../../lib/history/replay.ts'
import { proceed } from '../../lib/proceed.ts'
import { parsePosition } from '../../lib/protocol/position.ts'
import { LatestValues } from '../../lib/room/latest-values.ts'
import { Room } from '../../lib/room/room.ts'
import { Lifecycle } from '../../lib/session/lifecycle.ts'
import { chunkedEventEncoding, encodings } from '../../lib/transport/encoding.ts'
import type { Encode } from '../../lib/transport/envelope.ts'
import type { Broker, HistoryQuery, Position } from '../../types/index.ts'
import { random } from '../helpers/random.ts'
import { runSchedule, type Schedule } from './model.ts'
import { runValues } from './values.ts'

/**
 * Twins of the model: each one runs the model's schedules while one protection is off, until a client loses messages, or gets one twice, without being told. The
 * same schedule is without a fault while the protection is on. A twin that finds nothing says that the model does not see what the protection is for.
 */
interface Twin {
  name: string
  /** Features of its schedules, in which the protection matters. */
  schedule: Partial<Schedule>
  /** The fault that it must show. */
  shows: RegExp
  /** Most schedules, if few of them show the fault. */
  most?: number
  /** Runs a schedule. Default: one of a topic that keeps a log. */
  run?: typeof runSchedule
  /** Turns the protection off. Returns a function that turns it on again. */
  turnOff?: () => () => void
}

const mostSchedules = 60
const whole = { size: 1_000, bytes: 50_000_000, replay: 50_000_000 }
const values = { history: { latest: true } }
const lost = /right after/

/** Replaces a method of a class. Returns a function that puts it back. */
function replace<C extends object, K extends keyof C> (prototype: C, name: K, make: (original: any) => C[K]): () => void {
  const original = prototype[name]
  prototype[name] = make(original)
  return () => { prototype[name] = original }
}

function restoring (...restore: (() => void)[]): () => void {
  return () => { for (const each of restore) each() }
}

/** Ends replays at a position that is decided with hello, though members are placed behind what the room delivers meanwhile. */
function endReplays (decide: (room: Room, plan: ReplayPlan) => Position | undefined): () => void {
  const ends = new WeakMap<object, Position | undefined>()
  return restoring(
    replace(Room.prototype, 'addReplaying', original => function (this: Room, member, plan) {
      ends.set(member, decide(this, plan))
      original.call(this, member, plan)
    }),
    replace(Room.prototype, 'sendKept', original => function (this: Room, member, turn) {
      const { position } = this.feed
      this.feed.position = ends.get(member)
      try {
        return original.call(this, member, turn)
      } finally {
        this.feed.position = position
      }
    })
  )
}

/** A broker that answers as another one does, with other pages. */
function withPages (broker: Broker, history: (topic: string, query: HistoryQuery) => ReturnType<NonNullable<Broker['history']>>): Broker {
  return new Proxy(broker, {
    get (target, name) {
      if (name === 'history') return history
      const value = Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    }
  })
}

/** Names a page after the top of its topic. */
async function afterTop (payload: unknown, app: FastifyInstance): Promise<unknown> {
  if (typeof payload !== 'string' || !payload.startsWith('{"topic":"news"')) return payload
  const { id } = await (app as FastifyInstance & { rooms: any }).rooms.history('news', { limit: 1 })
  return JSON.stringify({ ...JSON.parse(payload), id })
}

/** Tells of no message that is no longer kept. */
function withoutLosses (broker: Broker): Broker {
  return withPages(broker, (topic, query) => proceed(broker.history!(topic, query), page => ({ ...page, from: query.after ?? 0 })))
}

const twins: Twin[] = [
  {
    name: 'a client that takes the top, not hello.id, as its position loses messages if it is cut inside the replay',
    schedule: { history: whole, faults: { takesTop: true } },
    shows: lost
  },
  {
    name: 'a join that is planned before onJoin, not in the step of hello, loses what is published meanwhile',
    schedule: { history: whole, hasOnJoin: true },
    shows: lost,
    turnOff () {
      let planned: Position | undefined
      return restoring(
        replace(Lifecycle.prototype, 'awaitAcceptance', original => function (this: Lifecycle, session, commit) {
          const position = session.room?.feed.position
          original.call(this, session, () => {
            planned = position
            commit()
            planned = undefined
          })
        }),
        replace(Replay.prototype, 'plan', original => function (this: Replay, since, encoding, top) {
          return original.call(this, since, encoding, planned ?? top)
        }),
        endReplays(({ feed }) => planned ?? feed.position)
      )
    }
  },
  {
    name: 'a replay that ends where the top was at hello loses what is published while it is sent',
    schedule: { history: whole, isTight: true },
    shows: lost,
    turnOff: () => endReplays(({ feed }) => feed.position)
  },
  {
    name: 'frames of kept messages that need not reach the top lose what is published while a broker reads',
    schedule: { history: whole, isSlow: true },
    shows: lost,
    turnOff: () => restoring(
      replace(Replay.prototype, 'reaches', () => () => true),
      // Messages that are missing in the frames are not read again.
      endReplays(({ feed: { position } }, { frames }) => position?.epoch === frames?.epoch ? { epoch: frames!.epoch, offset: Math.min(position!.offset, frames!.top) } : position)
    )
  },
  {
    name: 'a position whose epoch is not compared loses the messages of the new epoch',
    schedule: { history: whole, restarts: true },
    shows: lost,
    turnOff: () => replace(Replay.prototype, 'plan', original => function (this: Replay, since, encoding, top) {
      const position = since === undefined ? null : parsePosition(since)
      if (position === null || top === undefined) return original.call(this, since, encoding, top)
      const plan = original.call(this, `${top.epoch}-${position.offset}`, encoding, top)
      return plan.recovered === true ? { ...plan, id: since } : plan
    })
  },
  {
    name: 'a part of the messages, sent in place of recovered: false, has a hole',
    schedule: { history: { size: 1_000, replay: 30_000 } },
    shows: lost,
    turnOff: () => replace(Replay.prototype, 'plan', original => function (this: Replay, since, encoding, top) {
      const plan = original.call(this, since, encoding, top)
      return plan.recovered === false && top?.epoch === parsePosition(since!)!.epoch ? { ...original.call(this, '0', encoding, top), id: since, recovered: true } : plan
    })
  },
  {
    name: 'a broker that does not tell what it has dropped causes a hole',
    schedule: { history: { size: 5 }, wrap: withoutLosses },
    shows: lost
  },
  {
    name: 'a broker that does not tell what has expired causes a hole',
    schedule: { history: whole, expires: true, wrap: withoutLosses },
    shows: lost
  },
  {
    name: 'a member that is not taken from the fan-out gets the message from which it was excepted',
    schedule: { history: whole, excepts: true },
    shows: /from which it was excepted/,
    turnOff: () => replace(Room.prototype, 'deliver', original => function (this: Room, delivery) { return original.call(this, delivery) })
  },
  {
    name: 'a message that is sent again, without the memory of its mid, stands in the topic twice',
    schedule: { history: whole },
    shows: /stands at .* and at/,
    turnOff: () => replace(Mids.prototype, 'once', () => (_key, first) => first(() => {}))
  },
  {
    name: 'a raw member that is not closed with 4202 loses messages',
    schedule: { history: { size: 5 } },
    shows: /client 4: .* right after/,
    turnOff: () => replace(Replay.prototype, 'plan', original => function (this: Replay, since, encoding, top) {
      const plan = original.call(this, since, encoding, top)
      return encodings[encoding].envelope.canBeAnswered || plan.recovered !== false ? plan : { ...plan, recovered: true }
    })
  },
  {
    name: 'a slow member that is not sent a gap loses messages',
    schedule: { history: whole, isTight: true },
    shows: lost,
    turnOff: () => replace(Room.prototype, 'caughtUp', original => function (this: Room, member, turn) {
      const { transport } = member
      const writeAll = transport.writeAll
      transport.writeAll = (frames: Buffer[]) => { writeAll.call(transport, frames.filter(frame => !frame.includes('"type":"gap"'))) }
      try {
        original.call(this, member, turn)
      } finally {
        transport.writeAll = writeAll
      }
    })
  },
  {
    name: 'a client that ignores gaps loses messages',
    schedule: { history: whole, isTight: true, faults: { ignoresGaps: true } },
    shows: lost
  },
  {
    name: 'an event stream whose hello has no id: of its own loses messages if it is cut before the first one',
    schedule: { history: whole },
    shows: /client [23]: .* right after/,
    turnOff: () => replace(encodings[chunkedEventEncoding] as { encode: Encode }, 'encode', original => (text: string, rest?: Buffer, id?: string) => {
      return original(text, rest, text.startsWith('{"type":"hello"') ? undefined : id)
    })
  },
  {
    name: 'an event stream whose Last-Event-ID is ignored loses messages',
    schedule: { history: whole, prepare: app => { app.addHook('onRequest', async ({ headers }) => { delete headers['last-event-id'] }) } },
    shows: /client [23]: .* right after/
  },
  {
    name: 'a client that takes the top, not the id of a page that is not complete, as its position loses messages',
    schedule: { history: whole, faults: { takesTopOfPages: true } },
    shows: /client [56]: .* right after/
  },
  {
    name: 'a page that is named after the top, and not after its last message, loses messages',
    schedule: { history: whole, prepare: app => { app.addHook('onSend', async (_request, _reply, payload) => afterTop(payload, app)) } },
    shows: /client [56]: .* right after/
  },
  {
    name: 'a stale version that is not refused replaces a newer value',
    run: runValues,
    schedule: values,
    shows: /has version .* after/,
    turnOff: () => replace(KeptValues.prototype, 'isStale', () => () => false)
  },
  {
    name: 'a member that joins without a position, and is not sent the kept values, does not have them',
    run: runValues,
    schedule: values,
    shows: /client \d has .* in place of/,
    turnOff: () => replace(Replay.prototype, 'plan', original => function (this: Replay, since, encoding, top) {
      const plan = original.call(this, since, encoding, top)
      return since === undefined ? { ...plan, replayed: undefined, frames: undefined } : plan
    })
  },
  {
    name: 'a slow member that is not sent the newest value of each key, once it has caught up, does not have them',
    run: runValues,
    // Few members lag and catch up, and then keep what they have until the end.
    most: 500,
    schedule: { ...values, isTight: true, policy: 'latest' },
    shows: /client \d has .* in place of/,
    turnOff: () => replace(LatestValues.prototype, 'after', () => function * () {})
  }
]

for (const { name, most = mostSchedules, run: runOne = runSchedule, schedule, shows, turnOff } of twins) {
  t.test(name, { timeout: 120_000 }, async t => {
    const run = (seed: number, changes: Partial<Schedule>): Promise<string[]> => runOne({
      seed, random: random(seed), history: whole, keepsAll: false, isSlow: false, restarts: false, isTight: false, hasOnJoin: false, ...changes
    }, 200)
    for (let seed = 0; seed < most; seed++) {
      const turnOn = turnOff?.()
      const faults = await run(seed, schedule).finally(turnOn)
      if (!faults.some(fault => shows.test(fault))) continue
      t.comment(`seed ${seed}: ${faults.length} faults`)
      const { faults: _, wrap: __, prepare: ___, ...same } = schedule
      t.same(await run(seed, same), [], `seed ${seed} with the protection`)
      return
    }
    t.fail(`no fault in ${most} schedules`)
  })
}
