-- Takes jobs for one attempt each: from pending to active under a fresh fencing token, and renews the node's lease.
-- All claims of one call share the token: a claim is told from every other by its job and its token together.
-- Jobs of paused tasks are parked, out of the way of the others; parked jobs of tasks that run again come back.
--
-- KEYS  pending, jobs, history, active, leases, counters, pauses, parked (and, beside it, its sorted sets parked/TASK)
-- ARGV  now (ms), node, end of lease (ms), how many at most
-- Returns { 'paused' | 'more' (parked jobs are still coming back) | '', token or '', record, history or '' … },
-- with a record and a history for each claim.
local now, node, lease, want = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
-- How many parked jobs come back at a time, and how far a claim looks past jobs that it parks.
local BATCH, LOOK, ROUNDS = 1000, 200, 10
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('HDEL', KEYS[4], '')
-- Only ever later: this call may have waited on its way while a heartbeat overtook it.
redis.call('ZADD', KEYS[5], 'GT', lease, node)

local paused, some_paused = {}, false
for _, task in ipairs(redis.call('HKEYS', KEYS[7])) do
  if task == '' then
    return { 'paused', '' }
  end
  paused[task], some_paused = true, true
end

local say = ''
for _, task in ipairs(redis.call('SMEMBERS', KEYS[8])) do
  if not paused[task] then
    local from = KEYS[8] .. '/' .. task
    local back = redis.call('ZRANGE', from, 0, BATCH - 1, 'WITHSCORES')
    local places = {}
    for i = 1, #back, 2 do
      places[i], places[i + 1] = back[i + 1], back[i]
    end
    if #back > 0 then
      redis.call('ZADD', KEYS[1], unpack(places))
      redis.call('ZREMRANGEBYRANK', from, 0, #back / 2 - 1)
    end
    if redis.call('EXISTS', from) == 1 then
      say = 'more'
    else
      redis.call('SREM', KEYS[8], task)
    end
  end
end

local ids, records = {}, {}
if not some_paused then
  ids = redis.call('ZRANGE', KEYS[1], 0, want - 1)
  if #ids > 0 then
    records = redis.call('HMGET', KEYS[2], unpack(ids))
    redis.call('ZREMRANGEBYRANK', KEYS[1], 0, #ids - 1)
  end
end
for _ = 1, some_paused and ROUNDS or 0 do
  local looked_at = redis.call('ZRANGE', KEYS[1], 0, math.max(want, LOOK) - 1)
  if #looked_at == 0 or #ids >= want then
    break
  end
  local texts, gone = redis.call('HMGET', KEYS[2], unpack(looked_at)), {}
  for i, id in ipairs(looked_at) do
    if #ids >= want then
      break
    end
    gone[i] = id
    -- The text of the record as this daemon writes it; inside a value the quotes would be escaped.
    local task = texts[i] and string.match(texts[i], '"task":"([^"]*)"')
    if task and paused[task] then
      redis.call('ZADD', KEYS[8] .. '/' .. task, redis.call('ZSCORE', KEYS[1], id), id)
      redis.call('SADD', KEYS[8], task)
    else
      ids[#ids + 1] = id
      records[#ids] = texts[i]
    end
  end
  redis.call('ZREM', KEYS[1], unpack(gone))
end
if #ids == 0 then
  return { say, '' }
end

local histories = redis.call('HMGET', KEYS[3], unpack(ids))
-- string.format, because Lua writes numbers from 1e14 on in exponent form.
local token = string.format('%.0f', redis.call('HINCRBY', KEYS[6], 'token', 1))
local holder = token .. ' ' .. node .. ' ' .. now
local claims, active = { say, token }, {}
for i = 1, #ids do
  -- A job without a record was deleted while it waited.
  if records[i] then
    local at, mark = #claims, #active
    claims[at + 1], claims[at + 2] = records[i], histories[i] or ''
    active[mark + 1], active[mark + 2] = ids[i], holder
  end
end
if #active > 0 then
  redis.call('HSET', KEYS[4], unpack(active))
end
return claims
