-- Cleans the registries of one of RQ's queues, as its workers do every ten minutes: forgets what is past its time, gives
-- back or fails what dead workers have left, and takes dead workers off the lists. Does nothing while one of RQ's workers
-- is at it.
--
-- KEYS  RQ's lock for this
-- ARGV  what RQ's keys begin with, the name of our executions, now (ISO), now (s), RQ's queue, how long a job may stand
--       between its queue and its start (s), how many of each kind at most, then why a job was abandoned
--       (a text, deflated); and '1' to clean too what belongs to no queue, groups and rate
--       limits (else '')
-- Returns { how many jobs were given back, how many failed, how many are in the hands of RQ's own workers }.
local base, ours, iso, now, queue = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local stuck_after, most = tonumber(ARGV[6]), ARGV[7]
local KEPT = 31536000
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('ZREM', base .. 'finished:' .. queue, '')
if redis.call('EXISTS', KEYS[1]) == 1 then
  return { 0, 0, 1 }
end
local enqueue, release, push, give_back, fill = waiting(base, iso, ARGV[4])
local list = base .. 'queue:' .. queue
local between = list .. ':intermediate'
local back, failed = 0, 0
redis.call('ZREMRANGEBYSCORE', base .. 'finished:' .. queue, 0, now)
redis.call('ZREMRANGEBYSCORE', base .. 'failed:' .. queue, 0, now)

local function place_back(id, job)
  local key = redis.call('HGET', job, 'rate_limit_key')
  if key and key ~= '' then
    give_back(id, key)
  end
end

local function fail(id, job, why)
  local ttl = tonumber(redis.call('HGET', job, 'failure_ttl') or KEPT)
  redis.call('HSET', job, 'status', 'failed', 'exc_info', why)
  if ttl >= 0 then
    redis.call('EXPIRE', job, ttl)
  end
  redis.call('ZADD', base .. 'failed:' .. queue, ttl < 0 and '-1' or string.format('%.0f', now + ttl), id)
  release(id, 'failed')
  place_back(id, job)
  failed = failed + 1
end

-- RQ's rule for a job whose worker gave no sign of life: again if it has retries left, else failed.
local function abandoned(id, job)
  local known = redis.call('HMGET', job, 'status', 'retries_left', 'retry_intervals', 'ttl', 'timeout')
  -- One that stands in a list, or was never started by a worker that died early, is not lost.
  local waits = known[1] == 'queued'
    and (redis.call('LPOS', list, id) or redis.call('LPOS', between, id))
  if known[1] ~= 'started' and known[1] ~= 'queued' or waits then
    return
  end
  local left = tonumber(known[2] or 0)
  if left <= 0 then
    return fail(id, job, ARGV[8])
  end
  local ok, list = pcall(cjson.decode, known[3] or '[]')
  local wait = ok and tonumber(list[math.max(#list - left, 0) + 1]) or 0
  redis.call('HSET', job, 'retries_left', left - 1)
  if wait > 0 then
    redis.call('HSET', job, 'status', 'scheduled')
    redis.call('ZADD', base .. 'scheduled:' .. queue, string.format('%.0f', math.floor(now) + wait), id)
    place_back(id, job)
  else
    push(id, queue, false, known[4], known[5])
  end
  back = back + 1
end

local wip = base .. 'wip:' .. queue
for _, member in ipairs(redis.call('ZRANGEBYSCORE', wip, 0, now, 'LIMIT', 0, most)) do
  local id, execution = string.match(member, '^(.*):([^:]*)$')
  redis.call('ZREM', wip, member)
  redis.call('DEL', base .. 'execution:' .. member)
  -- One of ours is taken over by a node of ours, whatever its clients see meanwhile.
  if execution ~= ours then
    abandoned(id or member, base .. 'job:' .. (id or member))
  end
end

-- A score is the end of the job's time to live, or from RQ 3.0 on when it came, and then says nothing. The job itself goes
-- at the end of its time: Redis sees to that.
local deferred = base .. 'deferred:' .. queue
for _, id in ipairs(redis.call('ZRANGEBYSCORE', deferred, 0, now, 'LIMIT', 0, most)) do
  if redis.call('EXISTS', base .. 'job:' .. id) == 0 then
    redis.call('ZREM', deferred, id)
  end
end

-- What such jobs waited for has ended, and whoever was to enqueue them then (RQ from 2.9 on) died before.
local ready = base .. 'ready:' .. queue
for _, id in ipairs(redis.call('ZRANGE', ready, 0, tonumber(most) - 1)) do
  redis.call('ZREM', ready, id)
  local known = redis.call('HMGET', base .. 'job:' .. id, 'status', 'enqueue_at_front', 'ttl', 'timeout')
  if known[1] == 'ready_to_enqueue' then
    enqueue(id, queue, known[2] == '1', known[3], known[4])
    back = back + 1
  end
end

-- A worker that died between taking a job and starting it has left it here. It was never started: it goes back.
for _, id in ipairs(redis.call('LRANGE', between, 0, tonumber(most) - 1)) do
  local seen = between .. ':first_seen:' .. id
  local first = redis.call('GET', seen)
  local status = redis.call('HGET', base .. 'job:' .. id, 'status')
  if not status then
    redis.call('LREM', between, 1, id)
  elseif not first then
    redis.call('SET', seen, ARGV[4], 'EX', 86400)
  elseif now - tonumber(first) > stuck_after then
    redis.call('LREM', between, 1, id)
    redis.call('DEL', seen)
    if status == 'queued' then
      redis.call('LPUSH', list, id)
      back = back + 1
    end
  end
end

local of_queue = base .. 'workers:' .. queue
for _, worker in ipairs(redis.call('SMEMBERS', of_queue)) do
  if redis.call('EXISTS', worker) == 0 then
    redis.call('SREM', of_queue, worker)
    redis.call('SREM', base .. 'workers', worker)
  end
end

-- Any of them, as there may be many: another pass finds the others. So too with what follows.
local looked_at = 0
for _, name in ipairs(ARGV[9] == '1' and redis.call('SRANDMEMBER', base .. 'groups', most) or {}) do
  local group = base .. 'group:' .. name
  for _, id in ipairs(redis.call('SRANDMEMBER', group, tonumber(most) - looked_at)) do
    looked_at = looked_at + 1
    if redis.call('EXISTS', base .. 'job:' .. id) == 0 then
      redis.call('SREM', group, id)
    end
  end
  if redis.call('EXISTS', group) == 0 then
    redis.call('SREM', base .. 'groups', name)
  end
  if looked_at >= tonumber(most) then
    break
  end
end

-- Places of jobs that are over and could not give them back, as whoever ran them died; and whole limits that nobody uses.
local function holds_its_place(id)
  local status = redis.call('HGET', base .. 'job:' .. id, 'status')
  return status == 'queued' or status == 'started' or status == 'scheduled'
    or redis.call('ZCOUNT', base .. 'executions:' .. id, '(' .. ARGV[4], '+inf') > 0
end

looked_at = 0
for _, key in ipairs(ARGV[9] == '1' and redis.call('SRANDMEMBER', base .. 'rl-keys', most) or {}) do
  local limit = base .. 'rl:' .. key
  for _, id in ipairs(redis.call('ZRANGE', limit .. ':allowed', 0, tonumber(most) - looked_at - 1)) do
    looked_at = looked_at + 1
    if not holds_its_place(id) then
      redis.call('ZREM', limit .. ':allowed', id)
    end
  end
  fill(key)
  if redis.call('EXISTS', limit .. ':allowed', limit .. ':rate_limited') == 0 then
    redis.call('SREM', base .. 'rl-keys', key)
    redis.call('DEL', limit)
  end
  if looked_at >= tonumber(most) then
    break
  end
end
local theirs = redis.call('LLEN', between)
for _, member in ipairs(redis.call('ZRANGE', wip, 0, 99)) do
  if string.match(member, '[^:]*$') ~= ours then
    theirs = theirs + 1
  end
end
return { back, failed, theirs }
