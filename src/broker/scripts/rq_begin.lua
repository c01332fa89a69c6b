-- Shows attempts as RQ's clients see a running job: the job's status, its execution, its place in the registry of what
-- runs, its worker. Only attempts that are active still: what has ended meanwhile has its answer, or gets it.
--
-- KEYS  active
-- ARGV  what RQ's keys begin with, the name of our executions, now (ISO), now (s), how long a sign of life counts (s), then
--       for each attempt: id, token of its claim, RQ's queue, RQ's worker
-- Returns for each: 1 shown, 0 it has ended, 2 its producer has cancelled or deleted the job.
local base, iso = ARGV[1], ARGV[3]
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('HDEL', KEYS[1], '')
local each, lives = running(KEYS[1], ARGV, 4)

local function begin(id, queue, worker)
  local job = base .. 'job:' .. id
  local known = redis.call('HMGET', job, 'status', 'data', 'rate_limit_key')
  if known[1] == 'canceled' or not known[1] and not known[2] then
    return 2
  end
  redis.call('HSET', job, 'status', 'started', 'started_at', iso, 'worker_name', worker)
  redis.call('PERSIST', job)
  lives(id, queue, worker, true)
  -- It waited there for this attempt, if it is not the first one.
  redis.call('ZREM', base .. 'scheduled:' .. queue, id)
  if known[3] and known[3] ~= '' then
    -- A worker of RQ's that cleans up takes its place away while it waits for a further attempt.
    redis.call('ZADD', base .. 'rl:' .. known[3] .. ':allowed', 'NX', ARGV[4], id)
  end
  local hash = base .. 'worker:' .. worker
  if redis.call('HEXISTS', hash, 'birth') == 1 then
    redis.call('HSET', hash, 'state', 'busy', 'current_job', id, 'current_job_working_time', '0', 'last_heartbeat', iso)
  end
  return 1
end

local function has_ended()
  return 0
end

return each(begin, has_ended)
