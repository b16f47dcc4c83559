import { nodeOf } from '../../lib/fleet/node-id.ts'
import type { Fleet } from './fleet.ts'
import type { Watched, World } from './members.ts'
import { holds } from './model.ts'
import type { Publisher } from './publisher.ts'

/** Compares each member with what was acknowledged. */
export function checkRest (world: World, rooms: readonly Watched[], { acknowledged, topics }: Publisher): void {
  const { faults, seen, losesData } = world
  const places = new Map<number, string[]>()
  for (const [place, n] of seen) {
    if (topics.get(n) !== place.slice(0, place.indexOf(' '))) faults.push(`message ${n} came in another topic: ${place}`)
    places.set(n, [...places.get(n) ?? [], place])
  }
  if (!losesData) for (const [n, all] of places) if (all.length > 1) faults.push(`message ${n} is there ${all.length} times: ${all.join(', ')}`)
  for (const { n, topic, id } of acknowledged) {
    if (topic.startsWith('log:') && !losesData && !places.has(n)) faults.push(`message ${n} of ${topic} was acknowledged, and no member has it`)
    const other = id === undefined ? undefined : seen.get(`${topic} ${id}`)
    if (other !== undefined && other !== n) faults.push(`message ${n} was acknowledged at ${id} of ${topic}, where members got ${other}`)
  }
  for (const room of rooms) {
    // A member that was told is not told again until a message has come.
    const lastTold = Math.max(...room.told)
    const since = room.told.length === 0 ? room.joinedAt ?? Infinity : Math.min(...[...room.got.values()].filter(at => at > lastTold))
    for (const { n, topic, begunAt } of acknowledged) {
      const isOwed = topic === room.topic && begunAt > since + 50
      if (isOwed && !topic.startsWith('short:') && !room.got.has(n)) faults.push(`${room.describe()} has not got ${n}, acknowledged, published ${begunAt - since} ms after it ${room.told.length === 0 ? 'joined' : `got its first message after it was told: ${room.reasons.at(-1)}`}`)
    }
  }
}

/**
 * Compares the orders in which messages of a topic that keeps nothing came: one for all members of a node, and for the messages of one node that in which they were
 * published. A message that was sent again to another node may be there twice if nodes know their own `mid`s alone: members that came in between have it in another place.
 */
export function checkOrder ({ faults, isOncePerNode }: World, rooms: readonly Watched[], { answered }: Publisher): void {
  const orders = rooms.filter(({ topic }) => topic.startsWith('plain:')).flatMap(room => [...room.order].map(([session, order]) => ({ room, session, order })))
  for (const { room, order } of orders) {
    /** By publishing node: the last begin of a publication so far. */
    const latest = new Map<number, { readonly n: number, readonly begunAt: number }>()
    for (const n of order) {
      const publication = answered.get(n)
      if (publication === undefined) continue
      const { node, begunAt, answeredAt } = publication
      const before = latest.get(node)
      if (before !== undefined && answeredAt < before.begunAt) faults.push(`${room.describe()} got ${n} behind ${before.n} of the same node, which was published ${before.begunAt - answeredAt} ms after the answer to it`)
      if (before === undefined || before.begunAt < begunAt) latest.set(node, { n, begunAt })
    }
  }
  for (const node of new Set(orders.map(({ session }) => nodeOf(session)))) {
    const all = orders.filter(({ session }) => nodeOf(session) === node)
    const longest = all.reduce((most, other) => other.order.length > most.order.length ? other : most)
    const places = new Map(longest.order.map((n, place) => [n, place]))
    for (const { room, order } of all) {
      const common = order.filter(n => places.has(n) && (isOncePerNode !== true || answered.has(n)))
      const at = common.findIndex((n, i) => i > 0 && places.get(n)! < places.get(common[i - 1]!)!)
      if (at !== -1) faults.push(`${room.describe()} got ${common[at]} behind ${common[at - 1]} on node ${node}, and another member the other way round`)
    }
  }
}

/** Members show who is there: each user once, and no ghost. */
export async function checkLobby ({ fleet, faults }: World, rooms: Watched[]): Promise<void> {
  const there = (): string => rooms.map(({ room }) => room.getSnapshot().session).sort().join()
  const shown = ({ room }: Watched): string | undefined => room.getSnapshot().members?.map(({ session }) => session).sort().join()
  const { every, ttl } = fleet.options.times
  if (await holds(() => rooms.every(room => shown(room) === there()), ttl + 2 * every + 4_000)) return
  const wrong = rooms.filter(room => shown(room) !== there())
  const differences = wrong.map(room => {
    const [has, needs] = [new Set(shown(room)?.split(',')), new Set(there().split(','))]
    return `${room.room.getSnapshot().session} misses ${[...needs].filter(id => !has.has(id)).join()}, shows ${[...has].filter(id => !needs.has(id)).join()}`
  })
  faults.push(`${wrong.length} of ${rooms.length} members show others than are there: ${differences.slice(0, 3).join('; ')}; ${wrong[0]!.describe()}`)
}

/** When all members have left, nodes keep nothing of them. */
export async function checkNodes (fleet: Fleet<any>, faults: string[]): Promise<void> {
  let stats: any[] = []
  const isAtRest = async (): Promise<boolean> => {
    stats = await Promise.all(fleet.nodes.map(node => node.stats()))
    return stats.every(({ connections, members, topics, publishing, queued }) => connections === 0 && members === 0 && topics === 0 && publishing === 0 && queued === 0)
  }
  let isDone = false
  const end = Date.now() + 8_000
  while (!(isDone = await isAtRest()) && Date.now() < end) await new Promise(resolve => setTimeout(resolve, 100))
  if (!isDone) faults.push(`nodes keep something of members that have left: ${JSON.stringify(stats.map(({ connections, members, topics, publishing, queued }) => ({ connections, members, topics, publishing, queued })))}`)
}

/** When all members have left, neither nodes nor the server keep anything of them. */
export async function checkServer (fleet: Fleet, faults: string[]): Promise<void> {
  await checkNodes(fleet, faults)
  const script = "local out = {} for _, key in ipairs(redis.call('KEYS', '*')) do if redis.call('PTTL', key) == -1 then out[#out + 1] = key end end return table.concat(out, ' ')"
  const forever = (await fleet.server.command('EVAL', script, '0')).split('\r\n')[1]!
  if (forever !== '') faults.push(`keys without a TTL: ${forever}`)
  let channels = ''
  const read = async (): Promise<void> => { channels = await fleet.server.command('PUBSUB', 'CHANNELS', '*:c:*') }
  await read()
  const timer = setInterval(() => { read().catch(() => {}) }, 200)
  if (!await holds(() => channels.startsWith('*0'), 5_000)) faults.push(`subscriptions are left: ${channels.replaceAll('\r\n', ' ')}`)
  clearInterval(timer)
}

/** Lists what the server still knows of members and users, as `<key> <entries>`: all but versions, and leaves of the last minutes. */
const leftScript = `
local out = {}
local function note (key, entries) if #entries > 0 then out[#out + 1] = key .. ' ' .. table.concat(entries, ',') end end
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = string.match(key, '}:(%a+):')
  if kind == 'pm' or kind == 'pn' or kind == 'hu' or kind == 'counts' then note(key, redis.call('HGETALL', key))
  elseif kind == 'pt' or kind == 'hn' then note(key, redis.call('SMEMBERS', key))
  elseif kind == 'pu' then
    local users = {}
    for _, field in ipairs(redis.call('HKEYS', key)) do if field ~= 'v' then users[#users + 1] = field end end
    note(key, users)
  end
end
return table.concat(out, '; ')
`

/** When all members have left, the server knows none of them, and no user. */
export async function checkForgotten (fleet: Fleet, faults: string[]): Promise<void> {
  const left = (await fleet.server.command('EVAL', leftScript, '0')).split('\r\n')[1]!
  if (left !== '') faults.push(`the server still knows members or users: ${left.slice(0, 2_000)}`)
}
