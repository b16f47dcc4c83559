import type { RedisShard } from '../../types/redis.ts'

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
