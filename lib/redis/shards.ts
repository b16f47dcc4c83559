import type { RedisConnection, RedisConnectionEvents, RedisPort, RedisShard } from '../../types/redis.ts'

/** Returns the port of one server, which has all slots. @param connect - opens a connection of the broker's own */
export function singlePort (connect: (events: RedisConnectionEvents) => Promise<RedisConnection>): RedisPort {
  return {
    isCluster: false,
    shards: async () => [{ id: '', slots: [[0, 16_383]] }],
    connect: (_shard, events) => connect(events),
    close () {}
  }
}

/**
 * Gathers slots by the server that holds them.
 * @param owners - the name of the server of each slot; `undefined`: no server holds it
 */
export function shardsOf (owners: (string | undefined)[]): RedisShard[] {
  const shards = new Map<string, [number, number][]>()
  owners.forEach((owner, slot) => {
    if (owner === undefined) return
    let ranges = shards.get(owner)
    if (ranges === undefined) shards.set(owner, ranges = [])
    const last = ranges.at(-1)
    if (last?.[1] === slot - 1) last[1] = slot
    else ranges.push([slot, slot])
  })
  return Array.from(shards, ([id, slots]) => ({ id, slots }))
}
