import { createHash } from 'node:crypto'

/** A script, and the digest by which the server knows it. */
export interface Script { readonly source: string, readonly sha: string }

export function script (source: string): Script {
  return { source, sha: createHash('sha1').update(source).digest('hex') }
}

/** Milliseconds that a topic which has a position, and never had a message, keeps it. Clients may read any name, so that each reading must not cost memory for a month. */
const unusedFor = 3_600_000

/**
 * Least number of offsets that a topic skips: more than a server can have lost. The end of a skip comes from the time, in 10 microseconds, because a server that goes
 * back twice must not skip to the same offset. 15 digits last until the year 2286.
 */
const leastSkip = 1_000_000
/** Most skips that a topic remembers, of those behind which messages are kept. One more begins a new epoch. */
const mostSkips = 64

/**
 * Most messages of a log above its size, and the share of its size that they may be. Old messages are removed in groups of so many: reading and removing one costs the
 * server a quarter of a publication. A reading leaves them out.
 */
const mostSurplus = 16
const surplusShare = 16

/** The length of the tail of a kept publication. Another program may have written anything there, and the script must go on. */
const tailLength = `local function tail (frame)
  if #frame < 8 then return 0 end
  return math.min(#frame, (struct.unpack('>I4', frame, 5)))
end`

/** Counts kept messages. Returns 0 and `true` if the keys are of no use: the topic was no log before a deploy, or no values, or the server has dropped one key of two. */
const keptCount = `local function kept (isLog)
  local n, others
  if isLog then n = redis.pcall('XLEN', s) else n, others = redis.call('ZCARD', z), redis.pcall('HLEN', s) end
  if type(n) == 'number' and (isLog or n == others) then return n end
  return 0, true
end`

/**
 * Publishes messages of one topic: appends them, trims, and sends them over the channel, in one step.
 *
 * Keys: metadata, messages (a stream, or a hash of values), fences, order of the values, then one for each message with a mid.
 * Arguments: channel, PUBLISH or SPUBLISH, an epoch to begin, the epoch and the top that the node knows, the node, the number of the call, `l` for a log, `v` for values
 * or `n` for a topic that keeps nothing, size (-1: no bound), bytes, ttl, ttl of the metadata, number of messages, the run of the server that the node knows (or nothing),
 * `1` to renew the time to live of metadata and fences, which new ones get anyway; then 6 for each: the publication, key, version, end, `1` if it has a mid, bytes that a value counts.
 *
 * Returns `done`, `fenced` (the call was done before) or `passed` (a later call was done before), and the epoch with one word for each message: `o<offset>`,
 * `d<position>`, `s` or `e`.
 *
 * A fence without its metadata is void, as is a stream: a lost metadata key begins a new epoch. The first write needs memory, because a server that has none refuses only
 * that one.
 *
 * A server that was started again, or that takes the place of another one, may have gone back to an older state, and perhaps no publishing node has seen what it lost.
 * The first publication of a topic in a new run of the server therefore skips offsets (see docs/decisions/0019). The run is asked of the server itself,
 * because the node may know an older one.
 */
export const publishScript = script(`
local m, s, f, z = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local node, mode, size, most = ARGV[6], ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
local e, top, b, r, n, ended, mids, first = '', 0, 0, 0, 0, false, 4, ''
local run, known, skips, isNewRun, before, isUnused = ARGV[14], '', '', false, '', false
local out, frames = {}, {}
local function text (number) return string.format('%.0f', number) end
local function runOf ()
  local info, replication = redis.pcall('INFO', 'server'), redis.pcall('INFO', 'replication')
  if type(info) ~= 'string' then return nil end
  local process, history = string.match(info, 'run_id:(%x+)'), string.match(replication, 'master_replid:(%x+)')
  return process and history and string.sub(process, 1, 16) .. string.sub(history, 1, 16)
end
${tailLength}
${keptCount}
if mode ~= 'n' then
  local meta = redis.call('HMGET', m, 'e', 'o', 'b', 'x', 'r', 'g', 'k')
  if meta[1] then
    e, top, b, ended, r = meta[1], tonumber(meta[2]), tonumber(meta[3] or 0), meta[4], tonumber(meta[5] or 0)
    known, skips = meta[6] or '', meta[7] or ''
    local fence = redis.call('HGET', f, node)
    if fence then
      local seq, rest = string.match(fence, '^(%d+) %d+ (.*)$')
      seq = tonumber(seq or -1)
      if seq == tonumber(ARGV[7]) then return {'fenced', rest} end
      if seq > tonumber(ARGV[7]) then return {'passed', ''} end
    end
    if run ~= '' and run ~= known then
      run = runOf() or known
      isNewRun = run ~= known
    end
    if ARGV[4] == e and top < tonumber(ARGV[5]) then
      e, skips, known = ARGV[3], '', ''
      redis.call('HSET', m, 'e', e, 'a', text(top), 'k', '')
    end
  else
    e, isNewRun = ARGV[3], run ~= ''
    redis.call('HSET', m, 'e', e, 'o', '0', 'a', '0')
    redis.call('DEL', s, f, z)
  end
  isUnused = top == 0
  local isUseless
  n, isUseless = kept(mode == 'l')
  if isUseless then redis.call('DEL', s, z) end
  if n == 0 then b, r = 0, top end
end
for i = 1, tonumber(ARGV[13]) do
  local at = 10 + i * 6
  local frame, key, version, reason, weight = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 5])
  local mid, done, old, oldOffset, oldVersion, oldWeight
  if ARGV[at + 4] == '1' then
    mids = mids + 1
    mid = KEYS[mids]
    done = redis.call('GET', mid)
  end
  if mode == 'v' and not done then
    old = redis.call('HGET', s, key)
    if old then oldOffset, oldVersion, oldWeight = string.match(old, '^(%d+):([^:]*):(%d+):') end
    if old and not oldOffset then oldOffset, oldVersion, oldWeight = '0', '', '0' end
  end
  if done then out[i] = 'd' .. done
  elseif ended then out[i] = 'e'
  elseif old and version ~= '' and oldVersion ~= '' and tonumber(version) < (tonumber(oldVersion) or 0) then out[i] = 's'
  else
    local place = ''
    if mode ~= 'n' then
      if isNewRun then
        if known ~= '' then
          local time, oldest, all = redis.call('TIME'), r, {}
          local to = math.max(top + ${leastSkip}, time[1] * 100000 + math.floor(time[2] / 10))
          if mode == 'l' and n > 0 then oldest = tonumber(string.match(redis.call('XRANGE', s, '-', '+', 'COUNT', 1)[1][1], '^%d+')) - 1 end
          for skip, last in string.gmatch(skips, '(%d+:(%d+))') do
            if tonumber(last) >= oldest then all[#all + 1] = skip end
          end
          if #all < ${mostSkips} then
            all[#all + 1] = text(top) .. ':' .. text(to)
            skips, before, top = table.concat(all, ' '), ',' .. text(top), to
          else
            e, skips = ARGV[3], ''
            redis.call('HSET', m, 'e', e, 'a', text(top))
          end
        end
        redis.call('HSET', m, 'g', run, 'k', skips)
        isNewRun = false
      end
      top = top + 1
      local id = text(top)
      if mode == 'l' then
        local added = redis.pcall('XADD', s, id .. '-0', 'd', frame)
        if type(added) == 'table' and added.err then
          if not string.find(added.err, 'equal or smaller', 1, true) then return added end
          redis.call('DEL', s)
          n, b = 0, 0
          redis.call('XADD', s, id .. '-0', 'd', frame)
        end
        n, b = n + 1, b + struct.unpack('>I4', frame, 5)
      else
        if old then n, b, r = n - 1, b - tonumber(oldWeight), math.max(r, tonumber(oldOffset)) end
        redis.call('HSET', s, key, id .. ':' .. version .. ':' .. text(weight) .. ':' .. frame)
        redis.call('ZADD', z, id, key)
        n, b = n + 1, b + weight
        while n > 0 and ((size >= 0 and n > size) or b > most) do
          local oldest = redis.call('ZRANGE', z, 0, 0)[1]
          local offset, bytes = string.match(redis.call('HGET', s, oldest) or '', '^(%d+):[^:]*:(%d+):')
          redis.call('HDEL', s, oldest)
          redis.call('ZREM', z, oldest)
          n, b, r = n - 1, b - tonumber(bytes or 0), math.max(r, tonumber(offset or 0))
        end
      end
      if first == '' then first = id end
      if reason ~= '' then
        ended = reason
        redis.call('HSET', m, 'x', reason)
      end
      place = e .. '-' .. id
      out[i] = 'o' .. id
    else out[i] = 'o' end
    frames[#frames + 1] = frame
    if mid then redis.call('SET', mid, place, 'PX', 300000) end
  end
end
if mode == 'l' then
  local cut, gone, from = 0, 0, '-'
  if size >= 0 and n > size + math.min(${mostSurplus}, math.floor(size / ${surplusShare})) then cut = n - size end
  while gone < n and (gone < cut or b > most) do
    local oldest = redis.call('XRANGE', s, from, '+', 'COUNT', math.min(100, math.max(1, cut - gone)))
    for i = 1, #oldest do b = b - tail(oldest[i][2][2]) end
    gone, from = gone + #oldest, '(' .. oldest[#oldest][1]
  end
  if gone > 0 then redis.call('XTRIM', s, 'MAXLEN', '=', n - gone) end
end
local answer = e .. ' ' .. table.concat(out, ' ')
if mode ~= 'n' then
  redis.call('HSET', m, 'o', text(top), 'b', text(b), 'r', text(r))
  redis.call('PEXPIRE', s, ARGV[11])
  if mode == 'v' then redis.call('PEXPIRE', z, ARGV[11]) end
  local isNew = redis.call('HSET', f, node, ARGV[7] .. ' ' .. text(top) .. ' ' .. answer)
  if isNew == 1 or ARGV[15] == '1' or isUnused then
    redis.call('PEXPIRE', m, ARGV[12])
    redis.call('PEXPIRE', f, 600000)
  end
  if isNew == 1 and redis.call('HLEN', f) > 128 then
    local all, tops = redis.call('HGETALL', f), {}
    for i = 2, #all, 2 do tops[i / 2] = tonumber(string.match(all[i], '^%d+ (%d+)') or 0) end
    local sorted = {unpack(tops)}
    table.sort(sorted)
    for i = 1, #tops do
      if tops[i] < sorted[65] and all[2 * i - 1] ~= node then redis.call('HDEL', f, all[2 * i - 1]) end
    end
  end
end
if #frames > 0 then redis.call(ARGV[2], ARGV[1], '1' .. e .. ':' .. first .. before .. ':' .. table.concat(frames)) end
return {'done', answer}
`)

/**
 * Reads kept messages of a topic.
 *
 * Keys: metadata, messages, fences, order. Arguments: an epoch to begin, the offset behind which to read (or nothing: the newest ones), most messages, most bytes,
 * `l` or `v`, the run of the server that the node knows (or nothing), size of a log (-1: no bound).
 *
 * Returns epoch, top, reason of the end, offset at which the epoch began, offset behind which all are kept, skips (`after:to`, with blanks between them); then offset and
 * publication of each message. The newest ones come in reverse order.
 */
export const historyScript = script(`
local m, s, f, z = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local after, limit, most = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local function text (number) return string.format('%.0f', number) end
local meta = redis.call('HMGET', m, 'e', 'o', 'x', 'a', 'r', 'k')
if not meta[1] then
  redis.call('HSET', m, 'e', ARGV[1], 'o', '0', 'a', '0', 'g', ARGV[6])
  redis.call('DEL', s, f, z)
  redis.call('PEXPIRE', m, ${unusedFor})
  return {ARGV[1], '0', '', '0', '0', ''}
end
local out = {meta[1], meta[2], meta[3] or '', meta[4] or '0', meta[2], meta[6] or ''}
local read, count = 0, 0
${tailLength}
${keptCount}
local function add (offset, frame)
  read = read + tail(frame)
  if count == limit or read > most then return false end
  count = count + 1
  out[#out + 1] = offset
  out[#out + 1] = frame
  return true
end
local n = kept(ARGV[5] == 'l')
if n == 0 then return out end
if ARGV[5] == 'l' then
  local size = tonumber(ARGV[7] or -1)
  local surplus = size >= 0 and math.max(0, n - size) or 0
  if surplus >= n then return out end
  local head = redis.call('XRANGE', s, '-', '+', 'COUNT', surplus + 1)[surplus + 1]
  local kept = tonumber(string.match(head[1], '^%d+')) - 1
  out[5] = text(kept)
  limit = math.min(limit, n - surplus)
  local command, from, to = 'XREVRANGE', '+', '-'
  if after ~= '' then
    after = text(math.max(tonumber(after), kept))
    command, from, to = 'XRANGE', '(' .. after .. '-0', '+' end
  while count < limit do
    local chunk = redis.call(command, s, from, to, 'COUNT', math.min(100, limit - count))
    for i = 1, #chunk do
      if not add(string.match(chunk[i][1], '^%d+'), chunk[i][2][2]) then return out end
      from = '(' .. chunk[i][1]
    end
    if #chunk == 0 then break end
  end
else
  local keys
  local last = text(math.min(limit, 4294967295))
  out[5] = meta[5] or '0'
  if after == '' then keys = redis.call('ZREVRANGE', z, 0, last)
  else keys = redis.call('ZRANGEBYSCORE', z, '(' .. after, '+inf', 'LIMIT', 0, last + 1) end
  for i = 1, #keys do
    local value = redis.call('HGET', s, keys[i]) or ''
    local offset, at = string.match(value, '^(%d+):[^:]*:%d+:()')
    if offset and not add(offset, string.sub(value, at)) then break end
  end
end
return out
`)

/**
 * Reads the positions of topics, and begins those that have none.
 *
 * Keys: metadata, messages, fences and order of each topic. Arguments: ttl of the metadata, the run of the server that the node knows (or nothing), then an epoch for
 * each topic.
 *
 * Returns epoch, top, reason of the end and offset at which the epoch began, of each.
 */
export const positionsScript = script(`
local out = {}
for i = 1, #KEYS, 4 do
  local m = KEYS[i]
  local meta = redis.call('HMGET', m, 'e', 'o', 'x', 'a')
  if not meta[1] then
    meta = {ARGV[(i + 3) / 4 + 2], '0', false, '0'}
    redis.call('HSET', m, 'e', meta[1], 'o', '0', 'a', '0', 'g', ARGV[2])
    redis.call('DEL', KEYS[i + 1], KEYS[i + 2], KEYS[i + 3])
  end
  if meta[2] == '0' then redis.call('PEXPIRE', m, ${unusedFor}) else redis.call('PEXPIRE', m, ARGV[1]) end
  out[#out + 1] = meta[1]
  out[#out + 1] = meta[2]
  out[#out + 1] = meta[3] or ''
  out[#out + 1] = meta[4] or '0'
end
return out
`)

/**
 * Begins a new epoch for a topic, because the server has lost publications that this node has seen. Other nodes may have begun one before.
 *
 * Key: metadata. Arguments: the old epoch, the new one, the offset that this node has seen, `1` if the server has another publication there, the run of the server that
 * the node knows (or nothing).
 */
export const renewScript = script(`
local meta = redis.call('HMGET', KEYS[1], 'e', 'o')
if meta[1] == ARGV[1] and (ARGV[4] == '1' or tonumber(meta[2]) < tonumber(ARGV[3])) then
  redis.call('HSET', KEYS[1], 'e', ARGV[2], 'a', meta[2], 'k', '')
  if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'g', ARGV[5]) end
end
return 1
`)

/**
 * Writes, reads the time, for which a user needs a right of its own, and sends a probe. A server that has become a replica would publish it, and refuses to write: then
 * nothing is sent. One that has no memory, or too few replicas, refuses to write and sends it.
 *
 * Key: of the node. Arguments: channel, PUBLISH or SPUBLISH, bytes. Returns the error of the write, or `OK`.
 */
export const probeScript = script(`
redis.call('TIME')
local written = redis.pcall('SET', KEYS[1], '', 'PX', 60000)
if written.err and string.find(written.err, 'READONLY', 1, true) then return written.err end
redis.call(ARGV[2], ARGV[1], ARGV[3])
return written.err or 'OK'
`)
