import { script } from './script.ts'

/**
 * The keys of nodes, all in one partition:
 *
 * - alive: `<node>:<incarnation>` by the time at which it counts as dead
 * - counts, of one node: topic = number of members
 * - claims, of one dead node: which node sweeps it
 *
 * Each lives for an hour at most without a sign of its node.
 */
const lifetime = 3_600_000
/** Dead nodes that one node sweeps in one beat. */
const perBeat = 16

/**
 * Says that a node lives.
 *
 * Keys: alive, the node's counts. Arguments: `<node>:<incarnation>`, milliseconds to live, `1` if the incarnation is new, the beginning of the keys of claims, milliseconds
 * of a claim.
 *
 * Returns `ok`, or `dead` if the node counts as dead: others may have removed its members. Then the number of live nodes and these, then dead ones that it is to sweep.
 */
export const beatScript = script(`
local alive, self = KEYS[1], ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local score = redis.call('ZSCORE', alive, self)
local state = 'dead'
if ARGV[3] == '1' or (score and tonumber(score) > now) then
  redis.call('ZADD', alive, string.format('%.0f', now + tonumber(ARGV[2])), self)
  redis.call('PEXPIRE', alive, ${lifetime})
  redis.call('PEXPIRE', KEYS[2], ${lifetime})
  state = 'ok'
end
local live = redis.call('ZRANGEBYSCORE', alive, '(' .. string.format('%.0f', now), '+inf')
local out = {state, tostring(#live)}
for i = 1, #live do out[#out + 1] = live[i] end
local dead = redis.call('ZRANGEBYSCORE', alive, '-inf', string.format('%.0f', now), 'LIMIT', 0, ${perBeat})
for i = 1, #dead do
  if dead[i] ~= self and redis.call('SET', ARGV[4] .. dead[i], self, 'NX', 'PX', ARGV[5]) then out[#out + 1] = dead[i] end
end
return out
`)

/** Ends a node that is dead or about to be: when all its members were swept (`1`), or so that another node sweeps it now. Keys: alive, its counts. Arguments: the node, `1`. */
export const endScript = script(`
if ARGV[2] == '1' then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('DEL', KEYS[2])
else redis.call('ZADD', KEYS[1], 'XX', '0', ARGV[1]) end
return 1
`)

/** Notes numbers of members. Key: the node's counts. Arguments: topic and number of each. */
export const reportScript = script(`
for i = 1, #ARGV, 2 do
  if ARGV[i + 1] == '0' then redis.call('HDEL', KEYS[1], ARGV[i]) else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
redis.call('PEXPIRE', KEYS[1], ${lifetime})
return 1
`)

const liveCounts = `
local time = redis.call('TIME')
local live = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)), '+inf')
`

/** Sums the numbers of members over all live nodes. Key: alive. Arguments: the beginning of the keys of counts, topics. Those keys are in the partition of the first one. */
export const countsScript = script(liveCounts + `
local out = {}
for i = 2, #ARGV do out[i - 1] = 0 end
for n = 1, #live do
  for from = 2, #ARGV, 1000 do
    local to = math.min(from + 999, #ARGV)
    local counts = redis.call('HMGET', ARGV[1] .. live[n], unpack(ARGV, from, to))
    for i = from, to do out[i - 1] = out[i - 1] + tonumber(counts[i - from + 1] or 0) end
  end
end
return out
`)

/** Names topics that have members. Key: alive. Arguments: the beginning of the keys of counts, most topics. */
export const topicsScript = script(liveCounts + `
local limit, seen, out = tonumber(ARGV[2]), {}, {}
for n = 1, #live do
  local cursor = '0'
  repeat
    local page = redis.call('HSCAN', ARGV[1] .. live[n], cursor, 'COUNT', 500)
    cursor = page[1]
    for i = 1, #page[2], 2 do
      local topic = page[2][i]
      if #out < limit and not seen[topic] then
        seen[topic] = true
        out[#out + 1] = topic
      end
    end
  until cursor == '0' or #out >= limit
  if #out >= limit then break end
end
return out
`)
