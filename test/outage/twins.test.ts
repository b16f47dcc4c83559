import t from 'tap'
import { Line } from '../../lib/redis/line.ts'
import { Link } from '../../lib/redis/link.ts'
import { Replay } from '../../lib/history/replay.ts'
import { Outgoing } from '../../lib/redis/outgoing.ts'
import { Reader } from '../../lib/redis/reader.ts'
import { publishScript, script } from '../../lib/redis/script.ts'
import { Subscriptions } from '../../lib/redis/subscriptions.ts'
import { noRedis } from '../helpers/redis-server.ts'
import { withoutSignals } from '../helpers/process.ts'
import { Fleet } from './fleet.ts'
import { runSchedule, type ScheduleOptions } from './model.ts'

/**
 * Twins of the model: each one runs schedules on a fleet while one protection is off, until the model finds what the protection is for. A twin that finds nothing says that the
 * model does not see it.
 */
interface Twin {
  readonly name: string
  /** The fault in which the protection matters. */
  readonly fault: string
  /** The finding that it must show. */
  readonly shows: RegExp
  readonly schedule?: Partial<ScheduleOptions>
  /** Turns the protection off. Returns a function that turns it on again. */
  turnOff (): () => void
}

const mostSchedules = 12

/** Replaces a method of a class. Returns a function that puts it back. */
function replace<C extends object, K extends keyof C> (prototype: C, name: K, make: (original: any) => C[K]): () => void {
  const original = prototype[name]
  prototype[name] = make(original)
  return () => { prototype[name] = original }
}

const twins: Twin[] = [
  {
    name: 'without reading what was missed, members are told of losses that there need not be',
    fault: 'connections of a node are refused',
    shows: /is told of a loss, though all is kept/,
    turnOff: () => replace(Reader.prototype, 'behind', original => async function (this: Reader, ...call) {
      return { ...await original.apply(this, call), messages: [] }
    })
  },
  {
    name: 'without the report of a loss, members of a topic without history miss messages silently',
    fault: 'connections of a node are refused',
    shows: /has not got \d+, acknowledged/,
    turnOff: () => replace(Line.prototype, 'lost', () => () => {})
  },
  {
    name: 'without a probe, silence is not noticed',
    fault: 'nothing comes from the server',
    shows: /has not noticed \d+ ms of silence/,
    schedule: { length: 3_000, isExact: true },
    turnOff: () => replace(Link.prototype, 'fault', original => function (this: Link, cause) {
      if (!cause.message.includes('probe')) original.call(this, cause)
    })
  },
  {
    name: 'without holding publications of topics with history, they fail in an outage',
    fault: 'connections of a node are refused',
    shows: /was refused after \d+ ms, in place of being held/,
    turnOff: () => replace(Outgoing.prototype, 'publish', original => function (this: Outgoing, publication) {
      return original.call(this, publication.retention === undefined ? publication : { ...publication, whenDown: 'fail' })
    })
  },
  {
    name: 'without comparing the position of a joiner with that of the server, members are told of losses that there are not',
    fault: 'members come to a node that is cut off',
    shows: /is told of a loss, though all is kept: recovered: false/,
    turnOff: () => replace(Replay.prototype, 'needs', original => function (this: Replay, position, encoding, room, mark) {
      return position !== null && !room.hasReached(position) ? undefined : original.call(this, position, encoding, room, mark)
    })
  },
  {
    name: 'without a new epoch and skipped offsets after a rollback, one position is that of two messages',
    fault: 'the newest messages are lost, as by a backup that is restored',
    shows: /another member got|where members got|does not get the last message|and is not told/,
    turnOff () {
      const { source, sha } = publishScript
      Object.assign(publishScript, script(source.replace(/if (ARGV\[4\] == e and top < tonumber\(ARGV\[5\]\)|run ~= '' and run ~= known) then/g, 'if false then')))
      const restore = replace(Subscriptions.prototype, 'renew', () => async () => {})
      return () => {
        restore()
        Object.assign(publishScript, { source, sha })
      }
    }
  }
]

t.test('twins', { skip: noRedis || withoutSignals }, async t => {
  const { TWIN = '', SEED = 1 } = process.env
  for (const { name, fault, shows, schedule, turnOff } of twins.filter(({ name }) => name.includes(TWIN))) {
    t.test(name, async t => {
      const fleet = await Fleet.start(t, { isInside: true, heartbeat: 500, times: { every: 1_000, ttl: 3_000 } })
      const turnOn = turnOff()
      t.teardown(turnOn)
      let found: string[] = []
      for (let seed = Number(SEED); seed < Number(SEED) + mostSchedules && !found.some(text => shows.test(text)); seed++) {
        const { faults } = await runSchedule(fleet, { seed, members: 24, faults: 1, length: 1_000, rate: 100, only: ({ name }) => name === fault, patience: 6_000, ...schedule })
        found = faults
      }
      turnOn()
      t.match(found.find(text => shows.test(text)), shows, `the model sees it: ${found.slice(0, 3).join('\n')}`)
      await fleet.close()
    })
  }
})
