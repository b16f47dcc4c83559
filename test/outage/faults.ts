import { cpSync, rmSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { startRedis, type RedisServer } from '../helpers/redis-server.ts'
import { serverOptions, type Fleet, type FleetNode, type FleetServer } from './fleet.ts'

/** A fault, and its end. */
export interface Fault<S extends FleetServer = RedisServer> {
  readonly name: string
  /** It takes data away from the server: members are told, and a number may be accepted again. */
  readonly losesData?: boolean
  /** Only nodes that are processes of their own. */
  readonly needsProcesses?: boolean
  /** The node by itself is cut off, or gone. */
  readonly isOfNode?: boolean
  /** It lasts so long that only long schedules have it. */
  readonly isLong?: boolean
  /** The server answers publications with an error that does not pass: they fail at once. */
  readonly refuses?: boolean
  /**
   * Runs the fault and mends it.
   * @param length - milliseconds that it lasts, if that can be chosen
   * @param cut - cuts the connections of a share of the members, who come back to any node
   */
  run (fleet: Fleet<S>, node: FleetNode, length: number, random: () => number, cut: (share: number) => void): Promise<unknown>
}

async function silence (fleet: Fleet, node: FleetNode, length: number, random: () => number, ...directions: ('up' | 'down')[]): Promise<void> {
  const begin = Date.now()
  // A node that is down already has nothing to notice.
  const wasUp = node.state === 'up'
  node.proxy.hold(...directions)
  await sleep(length)
  // A network that was gone for so long has often forgotten its connections.
  if (random() < 0.5) node.proxy.cut('rst')
  node.proxy.release()
  const { heartbeat } = fleet.options
  if (wasUp && length > 2 * heartbeat + 1_500 && node.isHealthy && !node.states.some(({ state, at }) => state !== 'up' && at >= begin && at <= begin + Math.min(10_000, 2 * heartbeat + 1_500))) node.faults.push(`it has not noticed ${length} ms of silence: ${JSON.stringify(node.states)}`)
}

/** A server that does not write. */
async function without (fleet: Fleet, length: number, begin: string[], end: string[]): Promise<void> {
  await fleet.server.command(...begin)
  await sleep(length)
  await fleet.server.command(...end)
}

/**
 * Puts a replica in the place of the server.
 * @param lag - milliseconds of publications that the replica lacks
 * @param isKilled - the old server is gone; else it lives on as a replica, and nodes have to find out
 */
async function failOver (fleet: Fleet, lag: number, isKilled: boolean): Promise<void> {
  const old = fleet.server
  // Not an option of its start, because it starts again later.
  const replica = await startRedis(fleet.test, serverOptions)
  await replica.command('REPLICAOF', '127.0.0.1', String(old.port))
  const isReady = async (): Promise<boolean> => (await replica.command('INFO', 'replication')).includes('master_link_status:up') && /aof_rewrite_in_progress:0[^]*aof_rewrite_scheduled:0/.test(await replica.command('INFO', 'persistence'))
  while (!await isReady()) await sleep(20)
  await replica.command('REPLICAOF', 'NO', 'ONE')
  await sleep(lag)
  for (const { proxy } of fleet.nodes) proxy.target = replica.port
  fleet.server = replica
  if (isKilled) await old.kill()
  else await old.command('REPLICAOF', '127.0.0.1', String(replica.port))
}

/** Takes the newest messages out of all topics, as of an earlier run of the server. Argument: how many of each. */
const rollback = `
for _, meta in ipairs(redis.call('KEYS', '*:m:*')) do
  local messages = string.gsub(meta, ':m:', ':s:', 1)
  local top = tonumber(redis.call('HGET', meta, 'o')) - tonumber(ARGV[1])
  if top > 0 and redis.call('EXISTS', messages) == 1 then
    for _, message in ipairs(redis.call('XRANGE', messages, '(' .. top .. '-0', '+')) do redis.call('XDEL', messages, message[1]) end
    if redis.call('XLEN', messages) > 0 then redis.call('XSETID', messages, top .. '-0') end
    redis.call('HSET', meta, 'o', tostring(top), 'g', 'an earlier run')
    redis.call('DEL', (string.gsub(meta, ':m:', ':f:', 1)))
  end
end
return 1`

export const faults: readonly Fault[] = [
  { name: 'the server is killed, and starts again with its data', run: async ({ server }, _node, length) => { await server.kill(); await sleep(length); await server.restart() } },
  { name: 'the server is killed, and starts again at once', run: ({ server }) => server.restart() },
  { name: 'the server starts again without data', losesData: true, run: async ({ server }, _node, length) => { await server.kill(); await sleep(length / 2); await server.restart(true) } },
  {
    name: 'the server loads its data',

    async run ({ server }, _node, length) {
      await server.command('EVAL', "for i = 1, 4096 do redis.call('SET', 'filler' .. i, string.rep('x', 50), 'PX', 60000) end", '0')
      // It answers clients after each 1024 commands. A command of its file is about 100 bytes.
      const commands = Number(/aof_current_size:(\d+)/.exec(await server.command('INFO', 'persistence'))![1]) / 100
      await server.kill()
      await server.restart(false, ['--key-load-delay', String(Math.max(1, Math.round(length * 1_000 / commands)))])
    }
  },
  {
    name: 'the server starts again with an older copy of its data',
    losesData: true,

    async run ({ server }, _node, length) {
      const copy = `${server.folder}.copy`
      cpSync(server.folder, copy, { recursive: true })
      await sleep(length / 4)
      await server.kill()
      rmSync(server.folder, { recursive: true })
      cpSync(copy, server.folder, { recursive: true })
      rmSync(copy, { recursive: true })
      await server.restart()
    }
  },
  { name: 'a replica that lags takes the place of the server', losesData: true, run: (fleet, _node, length, random) => failOver(fleet, length / 4, random() < 0.5) },
  { name: 'the server is suspended for half a minute', isLong: true, run: async ({ server }) => { server.suspend(); await sleep(30_000); server.resume() } },
  { name: 'the server is suspended', run: async ({ server }, _node, length) => { server.suspend(); await sleep(length); server.resume() } },
  { name: 'the data are flushed', losesData: true, run: ({ server }) => server.command('FLUSHALL') },
  {
    name: 'the newest messages are lost, as by a backup that is restored',
    losesData: true,

    async run ({ server }, _node, _length, random) {
      await server.command('EVAL', rollback, '0', String(1 + Math.floor(random() * 3)))
      await server.command('CLIENT', 'KILL', 'TYPE', 'pubsub')
      await server.command('CLIENT', 'KILL', 'TYPE', 'normal')
    }
  },
  { name: 'the scripts are flushed', run: ({ server }) => server.command('SCRIPT', 'FLUSH') },
  { name: 'subscribers are killed', run: ({ server }) => server.command('CLIENT', 'KILL', 'TYPE', 'pubsub') },
  { name: 'publishers are killed', run: ({ server }) => server.command('CLIENT', 'KILL', 'TYPE', 'normal') },
  { name: 'the server has no memory', refuses: true, run: (fleet, _node, length) => without(fleet, length, ['CONFIG', 'SET', 'maxmemory', '1'], ['CONFIG', 'SET', 'maxmemory', '0']) },
  { name: 'the server becomes a replica', run: (fleet, _node, length) => without(fleet, length, ['REPLICAOF', '127.0.0.1', '9'], ['REPLICAOF', 'NO', 'ONE']) },
  {
    name: 'the server is busy with a script',

    async run ({ server }, _node, length) {
      const script = server.command('EVAL', 'while true do end', '0').catch(() => {})
      await sleep(Math.max(300, length))
      await server.command('SCRIPT', 'KILL')
      await script
    }
  },
  { name: 'writes are paused', run: (fleet, _node, length) => without(fleet, length, ['CLIENT', 'PAUSE', '60000', 'WRITE'], ['CLIENT', 'UNPAUSE']) },
  {
    name: 'a subscriber that reads nothing is cut by the server',

    isOfNode: true,
    async run ({ server }, { proxy }, length) {
      await server.command('CONFIG', 'SET', 'client-output-buffer-limit', 'pubsub 1 0 0')
      proxy.hold('down')
      await sleep(length)
      proxy.release()
      await server.command('CONFIG', 'SET', 'client-output-buffer-limit', 'pubsub 33554432 8388608 60')
    }
  },
  { name: 'connections of a node end', isOfNode: true, run: async (_fleet, { proxy }) => { proxy.cut('fin') } },
  { name: 'connections of a node are reset', isOfNode: true, run: async (_fleet, { proxy }) => { proxy.cut('rst') } },
  { name: 'connections of a node are refused', isOfNode: true, run: async (_fleet, { proxy }, length) => { await proxy.refuse(); await sleep(length); await proxy.heal() } },
  {
    name: 'members come to a node that is cut off',
    isOfNode: true,
    async run (_fleet, { proxy }, length, _random, cut) {
      await proxy.refuse()
      await sleep(length / 2)
      cut(0.8)
      await sleep(length / 2)
      await proxy.heal()
    }
  },
  {
    name: 'connections of a node are cut inside messages',
    isOfNode: true,
    async run (_fleet, { proxy }, length, random) {
      for (const end = Date.now() + length; Date.now() < end; await sleep(150)) proxy.cutsAfter = 1 + Math.floor(random() ** 3 * 4_000)
      proxy.cutsAfter = undefined
    }
  },
  { name: 'a node is in a black hole', isOfNode: true, run: (fleet, node, length, random) => silence(fleet, node, length, random, 'up', 'down') },
  { name: 'nothing comes from the server', isOfNode: true, run: (fleet, node, length, random) => silence(fleet, node, length, random, 'down') },
  { name: 'nothing comes to the server', isOfNode: true, run: (fleet, node, length, random) => silence(fleet, node, length, random, 'up') },
  { name: 'a slow link', isOfNode: true, run: async (_fleet, { proxy }, length, random) => { proxy.delay = 20 + random() * 200; await sleep(length); proxy.delay = 0 } },
  { name: 'a node is killed', isOfNode: true, needsProcesses: true, run: async (_fleet, node, length) => { await node.kill(); await sleep(length); await node.start() } },
  {
    name: 'a node starts while the server is down',
    isOfNode: true,
    needsProcesses: true,
    async run ({ server }, node, length) {
      await node.kill()
      await server.kill()
      await Promise.all([node.start(), sleep(length).then(() => server.restart())])
    }
  },
  { name: 'a node is suspended', isOfNode: true, needsProcesses: true, run: async (_fleet, node, length) => { node.suspend(); await sleep(length); node.resume() } }
]
