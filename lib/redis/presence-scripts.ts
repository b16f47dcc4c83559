import { script } from './script.ts'

/**
 * The keys of the members of a topic, all in the topic's partition:
 *
 * - members: `<node>/<session>` = `<incarnation> <length of the user> <user><info>`
 * - users: `v` = the version; `c<user>` = the user's sessions; `f<user>` = the session with which the user has come
 * - nodes: `<node>:<incarnation>` = its sessions, so that those of dead nodes are counted without reading all
 * - left: `<length of the user> <user><session>` with which users have left, by time, kept for two minutes
 * - topics: of one node, in this partition: the topics in which it has members
 *
 * All live for an hour from the last change, and nodes refresh those of their members.
 */
const lifetime = 3_600_000
/** Milliseconds for which a leave that is sent again is answered as before. */
const remembered = 120_000

const common = `
local p, u, q, w = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local channel, publish, topic, node, incarnation = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local order, changed = {}, {}
local function note (session, value)
  if changed[session] == nil then order[#order + 1] = session end
  changed[session] = value
end
local function read (value)
  local of, length, from = string.match(value, '^(%d+) (%d+) ()')
  if not of then return '', '', '' end
  local user = string.sub(value, from, from + length - 1)
  return of, user, string.sub(value, from + length)
end
local function count (of, by)
  if redis.call('HINCRBY', q, node .. ':' .. of, by) > 0 then return true end
  redis.call('HDEL', q, node .. ':' .. of)
  return false
end
local function tagged (user, rest) return #user .. ' ' .. user .. rest end
-- Removes a session. Returns its user and info if it was the user's last one.
local function remove (session, value)
  local of, user, info = read(value)
  redis.call('HDEL', p, node .. '/' .. session)
  note(session, false)
  local more = count(of, -1)
  if user == '' or redis.call('HINCRBY', u, 'c' .. user, -1) > 0 then return more end
  redis.call('HDEL', u, 'c' .. user, 'f' .. user)
  return more, user, info
end
local function finish ()
  if #order > 0 then
    local set, leave = {}, {}
    for i = 1, #order do
      local value = changed[order[i]]
      if value then
        local _, user, info = read(value)
        set[#set + 1] = {order[i], user, info}
      else leave[#leave + 1] = order[i] end
    end
    local version = redis.call('HINCRBY', u, 'v', 1)
    redis.call(publish, channel, 'm1' .. cjson.encode({version = version, node = node, set = set, leave = leave}))
  end
  for i = 1, #KEYS do redis.call('PEXPIRE', KEYS[i], i == 4 and ${remembered} or ${lifetime}) end
end
`

/**
 * Notes changes of a node's members of one topic.
 *
 * Keys: members, users, nodes, left, topics. Arguments: channel, PUBLISH or SPUBLISH, topic, node, incarnation, `1` if these are all members that the node has; then for
 * each change `s` or `l`, session, user (or nothing), info (or nothing), `1` if it may have been sent before with another info.
 *
 * Returns `first`, `last` or nothing for each. A change that is sent again is answered as before.
 */
export const changeScript = script(common + `
local t = KEYS[5]
local out = {}
local function forget (user, session)
  redis.call('ZADD', w, now, tagged(user, session))
  redis.call('ZREMRANGEBYSCORE', w, '-inf', now - ${remembered})
end
if ARGV[6] == '1' then
  local kept = {}
  for at = 7, #ARGV, 5 do kept[node .. '/' .. ARGV[at + 1]] = true end
  local fields = redis.call('HGETALL', p)
  for i = 1, #fields, 2 do
    if not kept[fields[i]] and string.sub(fields[i], 1, #node + 1) == node .. '/' then
      local session = string.sub(fields[i], #node + 2)
      local _, user = remove(session, fields[i + 1])
      if user then forget(user, session) end
    end
  end
end
for at = 7, #ARGV, 5 do
  local session, user, info, again = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4] == '1'
  local field = node .. '/' .. session
  local old = redis.call('HGET', p, field)
  local outcome = ''
  if ARGV[at] == 's' then
    local value = incarnation .. ' ' .. tagged(user, info)
    if old ~= value then
      redis.call('HSET', p, field, value)
      if old then
        local of = read(old)
        if of ~= incarnation then
          count(of, -1)
          count(incarnation, 1)
        end
      else count(incarnation, 1) end
      note(session, value)
    end
    if user ~= '' then
      if not old then
        if redis.call('HINCRBY', u, 'c' .. user, 1) == 1 then
          redis.call('HSET', u, 'f' .. user, session)
          outcome = 'first'
        end
      elseif (again or (ARGV[6] == '0' and old == value)) and redis.call('HGET', u, 'f' .. user) == session then outcome = 'first' end
    end
  elseif old then
    local _, last = remove(session, old)
    if last then
      forget(last, session)
      outcome = 'last'
    end
  elseif user ~= '' and redis.call('HEXISTS', u, 'c' .. user) == 0 and redis.call('ZSCORE', w, tagged(user, session)) then outcome = 'last' end
  out[#out + 1] = outcome
end
finish()
if redis.call('HEXISTS', q, node .. ':' .. incarnation) == 1 then
  redis.call('SADD', t, topic)
  redis.call('PEXPIRE', t, ${lifetime})
else redis.call('SREM', t, topic) end
return out
`)

/**
 * Removes the members that a dead node has in one topic. Another node that does this, too, finds none.
 *
 * Keys: members, users, nodes, left. Arguments: channel, PUBLISH or SPUBLISH, topic, node, incarnation.
 *
 * Returns user and info of each user that has no session left.
 */
export const sweepScript = script(common + `
local out = {}
local fields = redis.call('HGETALL', p)
for i = 1, #fields, 2 do
  if string.sub(fields[i], 1, #node + 1) == node .. '/' and read(fields[i + 1]) == incarnation then
    local _, user, info = remove(string.sub(fields[i], #node + 2), fields[i + 1])
    if user then
      out[#out + 1] = user
      out[#out + 1] = info
    end
  end
end
redis.call('HDEL', q, node .. ':' .. incarnation)
finish()
return out
`)

/**
 * Reads the members of a topic.
 *
 * Keys: members, users, nodes. Arguments: most members, then the live nodes, each as `<node>:<incarnation>`.
 *
 * Returns the version, the number of pairs of node and count with these, then field and value of each member of a live node.
 */
export const readScript = script(`
local p, u, q = KEYS[1], KEYS[2], KEYS[3]
local limit = tonumber(ARGV[1])
local live = {}
for i = 2, #ARGV do live[ARGV[i]] = true end
local nodes = redis.call('HGETALL', q)
local out = {redis.call('HGET', u, 'v') or '0', tostring(#nodes / 2)}
for i = 1, #nodes do out[#out + 1] = nodes[i] end
local cursor, found = '0', 0
if limit > 0 then
  repeat
    local page = redis.call('HSCAN', p, cursor, 'COUNT', 500)
    cursor = page[1]
    local fields = page[2]
    for i = 1, #fields, 2 do
      local node = string.match(fields[i], '^([^/]*)/')
      if found < limit and live[node .. ':' .. string.match(fields[i + 1], '^%d+')] then
        found = found + 1
        out[#out + 1] = fields[i]
        out[#out + 1] = fields[i + 1]
      end
    end
  until cursor == '0' or found == limit
end
return out
`)

/** Names the topics in which a node has members. Key: the node's topics. */
export const nodeTopicsScript = script("return redis.call('SMEMBERS', KEYS[1])")

/** Keeps keys for another hour. */
export const refreshScript = script(`
for i = 1, #KEYS do redis.call('PEXPIRE', KEYS[i], ${lifetime}) end
return 1
`)

/** Removes keys. */
export const dropScript = script("return redis.call('DEL', unpack(KEYS))")
