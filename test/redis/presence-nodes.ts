import type { Test } from 'tap'
import { Redis } from 'ioredis'
import { channelOf, commonChannel, RedisControl } from '../../lib/redis/control.ts'
import { isDelta } from '../../lib/redis/delta.ts'
import { Keys } from '../../lib/redis/keys.ts'
import type { NodeTimes, RedisCalls } from '../../lib/redis/nodes.ts'
import { portOf } from '../../lib/redis/port.ts'
import type { Script } from '../../lib/redis/script.ts'
import { RedisPresence } from '../../lib/redis/presence.ts'
import type { GoneUser, PresenceChange, PresenceDelta } from '../../types/index.ts'
import type { RedisConnection } from '../../types/redis.ts'

/** Members that leave within a second of the death of their node. */
export const quick: NodeTimes = { every: 60, ttl: 300 }

const keys = new Keys('rooms', 4)

/** A node with presence and control on a server, without the rest of a broker. */
export class PresenceNode {
  readonly name: string
  readonly deltas: { topic: string, delta: PresenceDelta }[] = []
  readonly gone: GoneUser[] = []
  readonly back: GoneUser[] = []
  readonly controls: string[] = []
  unreadable = 0
  readonly presence: RedisPresence
  readonly control: RedisControl
  readonly #port: number
  readonly #topics: readonly string[]
  #commands: RedisConnection | undefined
  #subscriptions: RedisConnection | undefined
  /** Called with each answer before it is given; throws in place of it. */
  answered: (script: Script) => void = () => {}
  calls = 0

  constructor (port: number, name: string, times: NodeTimes, topics: readonly string[]) {
    this.#port = port
    this.name = name
    this.#topics = topics
    const ports = {
      calls: { call: (...call) => this.#call(...call) } satisfies RedisCalls,
      keys,
      node: name,
      publish: 'PUBLISH' as const,
      unreadable: () => { this.unreadable++ }
    }
    this.presence = new RedisPresence({
      ...ports,
      handlers: {
        presence: (topic, delta) => { this.deltas.push({ topic, delta: delta! }) },
        gone: users => { this.gone.push(...users) },
        back: users => { this.back.push(...users) }
      },
      revived: () => { this.control.up() },
      forget: name => this.control.forget(name)
    }, times)
    this.control = new RedisControl({ ...ports, incarnation: () => this.presence.nodes.incarnation, receive: (from, bytes) => { this.controls.push(`${from} ${bytes}`) } })
  }

  async connect (): Promise<void> {
    const port = portOf(new Redis({ port: this.#port, host: '127.0.0.1', lazyConnect: true }) as never)
    const control = [channelOf(keys, this.name), commonChannel(keys)]
    const topics = new Map(this.#topics.map(topic => [keys.channel(topic), topic]))
    const events = {
      message: (channel: string, bytes: Buffer) => {
        const topic = topics.get(channel)
        if (topic === undefined) this.control.read(bytes)
        else if (isDelta(bytes)) this.presence.receive(topic, bytes)
      },
      closed: () => {},
      moved: () => {}
    }
    const [commands, subscriptions] = await Promise.all([port.connect('', events), port.connect('', events)])
    this.#subscriptions = subscriptions
    await subscriptions.subscribe([...control, ...topics.keys()])
    this.#commands = commands
    this.control.up()
    await this.presence.up()
  }

  /** Cuts the connections, as the death of the process does. */
  cut (): void {
    this.#commands?.close()
    this.#subscriptions?.close()
    this.#commands = undefined
  }

  async change (...changes: PresenceChange[]): Promise<(string | undefined)[]> {
    return (await this.presence.change(changes)).map(({ user }) => user)
  }

  async members (topic: string): Promise<string[]> {
    return (await this.presence.read(topic, 1_000)).members.map(({ session }) => session).sort()
  }

  async #call (...[, script, names, args]: Parameters<RedisCalls['call']>): ReturnType<RedisCalls['call']> {
    if (this.#commands === undefined) throw new Error('there is no connection')
    this.calls++
    const [answer] = this.#commands.send([['EVAL', script.source, String(names.length), ...names, ...args]])
    const reply = await answer!
    this.answered(script)
    return reply
  }
}

/** Starts nodes that have topics attached. They are closed with their test. */
export async function startNodes (t: Test, port: number, names: string[], { times = quick, topics = ['a'] } = {}): Promise<PresenceNode[]> {
  const nodes = names.map(name => new PresenceNode(port, name, times, topics))
  t.teardown(async () => {
    for (const node of nodes) {
      await Promise.allSettled([node.presence.close(), node.control.close()])
      node.cut()
    }
  })
  for (const node of nodes) await node.connect()
  return nodes
}

export const set = (topic: string, session: string, user?: string, info?: string): PresenceChange => ({ topic, session, type: 'set', ...(user === undefined ? {} : { user }), ...(info === undefined ? {} : { info }) })
export const leave = (topic: string, session: string, user?: string): PresenceChange => ({ topic, session, type: 'leave', ...(user === undefined ? {} : { user }) })
