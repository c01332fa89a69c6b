-- Renews what RQ's clients see of running jobs, so that none of them takes one for abandoned. An attempt that is not
-- active any more and was not answered (it was handed back) is shown as waiting again.
--
-- KEYS  active
-- ARGV  what RQ's keys begin with, the name of our executions, now (ISO), now (s), how long a sign of life counts (s), then
--       for each attempt: id, token of its claim, RQ's queue, RQ's worker, how long it has been running (s)
-- Returns for each: 1 renewed, 0 it is not active any more.
local base, ours, iso, now, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local FIRST, WIDTH = 6, 5
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('HDEL', KEYS[1], '')
local ids = {}
for at = FIRST, #ARGV, WIDTH do
  ids[#ids + 1] = ARGV[at]
end
local holders = redis.call('HMGET', KEYS[1], unpack(ids))
local until_then = string.format('%.3f', tonumber(now) + ttl)

local function renew(id, queue, worker, running)
  local job, member = base .. 'job:' .. id, id .. ':' .. ours
  -- A client may have deleted the job: it stays deleted.
  if redis.call('EXISTS', job) == 1 then
    local execution, executions = base .. 'execution:' .. member, base .. 'executions:' .. id
    redis.call('HSET', job, 'last_heartbeat', iso)
    redis.call('HSET', execution, 'id', ours, 'last_heartbeat', now)
    redis.call('HSETNX', execution, 'created_at', now)
    redis.call('EXPIRE', execution, ttl)
    redis.call('ZADD', executions, until_then, ours)
    redis.call('EXPIRE', executions, ttl)
    redis.call('ZADD', base .. 'wip:' .. queue, 'XX', until_then, member)
  end
  local hash = base .. 'worker:' .. worker
  if redis.call('HGET', hash, 'current_job') == id then
    redis.call('HSET', hash, 'last_heartbeat', iso, 'current_job_working_time', running)
  end
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
  if redis.call('HGET', hash, 'current_job') == id then
    redis.call('HDEL', hash, 'current_job')
    redis.call('HSET', hash, 'state', 'idle')
  end
end

local out = {}
for n, id in ipairs(ids) do
  local at = FIRST + (n - 1) * WIDTH
  if holders[n] and string.match(holders[n], '^%d+') == ARGV[at + 1] then
    pcall(renew, id, ARGV[at + 2], ARGV[at + 3], ARGV[at + 4])
    out[n] = 1
  else
    pcall(hide, id, ARGV[at + 2], ARGV[at + 3])
    out[n] = 0
  end
end
return out
