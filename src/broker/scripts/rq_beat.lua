-- Renews what RQ's clients see of running jobs, so that none of them takes one for abandoned. An attempt that is not
-- active any more and was not answered (it was handed back) is shown as waiting again.
--
-- KEYS  active
-- ARGV  what RQ's keys begin with, the name of our executions, now (ISO), now (s), how long a sign of life counts (s), then
--       for each attempt: id, token of its claim, RQ's queue, RQ's worker, how long it has been running (s)
-- Returns for each: 1 renewed, 0 it is not active any more.
local base, ours, iso = ARGV[1], ARGV[2], ARGV[3]
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('HDEL', KEYS[1], '')
local each, lives = running(KEYS[1], ARGV, 5)

local function renew(id, queue, worker, seconds)
  -- A client may have deleted the job: it stays deleted.
  if redis.call('EXISTS', base .. 'job:' .. id) == 1 then
    lives(id, queue, worker, false)
  end
  local hash = base .. 'worker:' .. worker
  if redis.call('HGET', hash, 'current_job') == id then
    redis.call('HSET', hash, 'last_heartbeat', iso, 'current_job_working_time', seconds)
  end
  return 1
end

local function hide(id, queue, worker)
  local job, member = base .. 'job:' .. id, id .. ':' .. ours
  local known = redis.call('HMGET', job, 'status', 'worker_name')
  if known[1] == 'started' and known[2] == worker then
    redis.call('HSET', job, 'status', 'queued', 'worker_name', '')
    redis.call('ZREM', base .. 'wip:' .. queue, member)
    redis.call('DEL', base .. 'execution:' .. member, base .. 'executions:' .. id)
  end
  local hash = base .. 'worker:' .. worker
  redis.call('SREM', hash .. ':executions', member)
  if redis.call('HGET', hash, 'current_job') == id then
    redis.call('HDEL', hash, 'current_job')
    redis.call('HSET', hash, 'state', 'idle')
  end
  return 0
end

return each(renew, hide)
