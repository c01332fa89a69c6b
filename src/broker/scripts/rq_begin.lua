-- Shows attempts as RQ's clients see a running job: the job's status, its execution, its place in the registry of what
-- runs, its worker. Only attempts that are active still: what has ended meanwhile has its answer, or gets it.
--
-- KEYS  active
-- ARGV  what RQ's keys begin with, the name of our executions, now (ISO), now (s), how long a sign of life counts (s), then
--       for each attempt: id, token of its claim, RQ's queue, RQ's worker
-- Returns for each: 1 shown, 0 it has ended, 2 its producer has cancelled or deleted the job.
local base, ours, iso, now, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local FIRST, WIDTH = 6, 4
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('HDEL', KEYS[1], '')
local ids = {}
for at = FIRST, #ARGV, WIDTH do
  ids[#ids + 1] = ARGV[at]
end
local holders = redis.call('HMGET', KEYS[1], unpack(ids))
local until_then = string.format('%.3f', tonumber(now) + ttl)

local function begin(id, queue, worker)
  local job = base .. 'job:' .. id
  local known = redis.call('HMGET', job, 'status', 'data')
  if known[1] == 'canceled' or not known[1] and not known[2] then
    return 2
  end
  local member = id .. ':' .. ours
  local execution, executions = base .. 'execution:' .. member, base .. 'executions:' .. id
  redis.call('HSET', job, 'status', 'started', 'started_at', iso, 'last_heartbeat', iso, 'worker_name', worker)
  redis.call('PERSIST', job)
  redis.call('HSET', execution, 'id', ours, 'created_at', now, 'last_heartbeat', now)
  redis.call('EXPIRE', execution, ttl)
  redis.call('ZADD', executions, until_then, ours)
  redis.call('EXPIRE', executions, ttl)
  redis.call('ZADD', base .. 'wip:' .. queue, until_then, member)
  -- It waited there for this attempt, if it is not the first one.
  redis.call('ZREM', base .. 'scheduled:' .. queue, id)
  local hash = base .. 'worker:' .. worker
  if redis.call('HEXISTS', hash, 'birth') == 1 then
    redis.call('HSET', hash, 'state', 'busy', 'current_job', id, 'current_job_working_time', '0', 'last_heartbeat', iso)
  end
  return 1
end

local out = {}
for n, id in ipairs(ids) do
  local at = FIRST + (n - 1) * WIDTH
  if holders[n] and string.match(holders[n], '^%d+') == ARGV[at + 1] then
    -- A key of another type costs this one its show and nobody else.
    local ok, code = pcall(begin, id, ARGV[at + 2], ARGV[at + 3])
    out[n] = ok and code or 1
  else
    out[n] = 0
  end
end
return out
