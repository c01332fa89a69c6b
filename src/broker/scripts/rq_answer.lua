-- Tells RQ's clients how attempts have ended, and lets the jobs go that waited for them, each in one transition with the
-- payment of its debt. What Redis refuses (a key of another type) costs its own answer and no other; that debt stays.
--
-- KEYS  outbox
-- ARGV  what RQ's keys begin with, the name of our executions, now (ISO), now (s), how many workers, then for each: its
--       name, jobs that ended well, jobs that failed, seconds spent; then for each answer (at most 1000): id, token of the
--       settle that owes it, what to say ('finished' | 'failed' | 'stopped' | 'canceled' | 'retry'), RQ's queue, when it
--       began (ISO or ''), when it ended (ISO), the same two in seconds, RQ's worker, how long to keep the job (s, -1 for ever, 0 not at all), what
--       it returned or the exception (encoded, or ''), when it runs again (s, or '0' for at once) or was cancelled, how
--       many of its retries are left ('' if it has used none), '1' if it is to stand among RQ's scheduled jobs, '1' if its execution may have
--       been shown, the key of its rate limit (or '')
-- Returns for each answer: 1 when the debt is paid, 0 when there was none or a newer one, else Redis's refusal.
local base, ours, iso, now = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local FIRST, WORKER, WIDTH = 6, 4, 16
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('HDEL', KEYS[1], '')
local _, release, push, give_back = waiting(base, iso, ARGV[4])

local workers = tonumber(ARGV[5])
local first = FIRST + workers * WORKER
local ids = {}
for at = first, #ARGV, WIDTH do
  ids[#ids + 1] = ARGV[at]
end
local owed = #ids > 0 and redis.call('HMGET', KEYS[1], unpack(ids)) or {}
-- Places in sorted sets, written for all answers at once; and those of them that were swept.
local places, swept = {}, {}

local function place(registry, queue, score, id)
  local key = base .. registry .. ':' .. queue
  local list = places[key] or {}
  places[key] = list
  list[#list + 1], list[#list + 2] = score, id
  if not swept[key] and registry ~= 'canceled' then
    swept[key] = true
    redis.call('ZREMRANGEBYSCORE', key, 0, now)
  end
end

local function keep(keys, ttl)
  for _, key in ipairs(keys) do
    if ttl < 0 then
      redis.call('PERSIST', key)
    else
      redis.call('EXPIRE', key, ttl)
    end
  end
end

-- RQ from 2.2 on: the job runs again, so many times. Returns whether it stands in its queue.
local function repeat_it(id, job, queue, left, intervals, ttl)
  local ok, list = pcall(cjson.decode, intervals or '[]')
  local wait = ok and tonumber(list[1]) or 0
  if ok and #list > 1 then
    table.remove(list, 1)
    redis.call('HSET', job, 'repeat_intervals', cjson.encode(list))
  end
  redis.call('HSET', job, 'repeats_left', left - 1)
  redis.call('PERSIST', job)
  if wait == 0 then
    push(id, queue, false, ttl, true)
  else
    redis.call('HSET', job, 'status', 'scheduled')
    redis.call('ZADD', base .. 'scheduled:' .. queue, string.format('%.0f', math.floor(now) + wait), id)
  end
  return wait == 0
end

-- Returns whether the job keeps its place under its rate limit, as it stands in its queue or runs again by itself.
local function answer(at)
  local id, say, queue = ARGV[at], ARGV[at + 2], ARGV[at + 3]
  local began, ended, worker, ttl = ARGV[at + 4], ARGV[at + 5], ARGV[at + 8], tonumber(ARGV[at + 9])
  local value, again, left = ARGV[at + 10], tonumber(ARGV[at + 11]), ARGV[at + 12]
  local job, results = base .. 'job:' .. id, base .. 'results:' .. id
  if ARGV[at + 14] == '1' then
    local member = id .. ':' .. ours
    redis.call('ZREM', base .. 'wip:' .. queue, member)
    redis.call('DEL', base .. 'execution:' .. member, base .. 'executions:' .. id)
    local hash = base .. 'worker:' .. worker
    redis.call('SREM', hash .. ':executions', member)
    if redis.call('HGET', hash, 'current_job') == id then
      redis.call('HDEL', hash, 'current_job')
      local state = redis.call('EXISTS', base .. 'suspended') == 1 and 'suspended' or 'idle'
      redis.call('HSET', hash, 'state', state, 'last_heartbeat', iso)
    end
  end
  local known = redis.call('HMGET', job, 'data', 'status', 'dependency_ids', 'retries_left', 'repeats_left',
    'repeat_intervals', 'ttl')
  -- What its producer has deleted or cancelled meanwhile stays so.
  if not known[1] and not known[2] or (known[2] == 'canceled' and say ~= 'canceled') then
    return
  end
  if left ~= '' and known[4] then
    redis.call('HSET', job, 'retries_left', left)
  end
  if known[2] == 'scheduled' then
    -- It waited there for this attempt, which was too short to be shown.
    redis.call('ZREM', base .. 'scheduled:' .. queue, id)
  end
  if say == 'retry' then
    redis.call('HSET', job, 'status', again > 0 and 'scheduled' or 'queued', 'ended_at', ended, 'last_heartbeat', ended)
    if again > 0 and ARGV[at + 13] == '1' then
      redis.call('ZADD', base .. 'scheduled:' .. queue, ARGV[at + 11], id)
    end
    return true
  end
  if say == 'finished' and ttl == 0 then
    release(id, say)
    redis.call('DEL', job, results, job .. ':dependents', base .. 'job::' .. id .. ':dependencies')
    return
  end
  if say == 'canceled' and known[2] ~= 'canceled' then
    keep({ job }, ttl)
  end
  redis.call('HSET', job, 'status', say, 'started_at', began, 'ended_at', ended, 'last_heartbeat', ended, 'worker_name',
    worker)
  if say == 'canceled' then
    place('canceled', queue, ARGV[at + 11], id)
    return
  end
  local entry = { 'type', say == 'finished' and '1' or '2', 'worker_name', worker }
  if value ~= '' then
    entry[5], entry[6] = say == 'finished' and 'return_value' or 'exc_string', value
  end
  if began ~= '' then
    for _, word in ipairs({ 'execution_id', ours, 'execution_started_at', ARGV[at + 6], 'execution_ended_at', ARGV[at + 7] }) do
      entry[#entry + 1] = word
    end
  end
  redis.call('XADD', results, 'MAXLEN', '~', '10', '*', unpack(entry))
  local keys = { job, results }
  if known[3] then
    keys[3] = base .. 'job::' .. id .. ':dependencies'
  end
  keep(keys, ttl)
  if say == 'finished' then
    place('finished', queue, ttl < 0 and '+inf' or string.format('%.0f', now + ttl), id)
  else
    -- RQ's own registry of failed jobs holds the -1 of "for ever" as it is.
    place('failed', queue, ttl < 0 and '-1' or string.format('%.0f', now + ttl), id)
  end
  release(id, say)
  local repeats = tonumber(known[5] or 0)
  if say == 'finished' and repeats > 0 then
    return repeat_it(id, job, queue, repeats, known[6], known[7])
  end
end

local out, seen = {}, {}
for n, id in ipairs(ids) do
  local at = first + (n - 1) * WIDTH
  if owed[n] == ARGV[at + 1] and not seen[id] then
    seen[id] = n
    local ok, told = pcall(answer, at)
    out[n] = ok and 1 or type(told) == 'table' and told.err or tostring(told)
    if ok and not told and ARGV[at + 15] ~= '' then
      -- What goes wrong here is set right when the limits are cleaned.
      pcall(give_back, id, ARGV[at + 15])
    end
  else
    out[n] = 0
  end
end
for key, list in pairs(places) do
  local reply = redis.pcall('ZADD', key, unpack(list))
  if type(reply) == 'table' and reply.err then
    for p = 2, #list, 2 do
      out[seen[list[p]]] = reply.err
    end
  end
end
local paid = {}
for n, id in ipairs(ids) do
  if out[n] == 1 then
    paid[#paid + 1] = id
  end
end
if #paid > 0 then
  redis.call('HDEL', KEYS[1], unpack(paid))
end

local function count(at)
  local hash = base .. 'worker:' .. ARGV[at]
  if redis.call('HEXISTS', hash, 'birth') == 0 then
    return
  end
  if ARGV[at + 1] ~= '0' then
    redis.call('HINCRBY', hash, 'successful_job_count', ARGV[at + 1])
  end
  if ARGV[at + 2] ~= '0' then
    redis.call('HINCRBY', hash, 'failed_job_count', ARGV[at + 2])
  end
  redis.call('HINCRBYFLOAT', hash, 'total_working_time', ARGV[at + 3])
end
for w = 0, workers - 1 do
  pcall(count, FIRST + w * WORKER)
end
return out
