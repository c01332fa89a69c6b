-- Stands before scripts that show running jobs to RQ's clients: finds which attempts run still, and writes of one that it
-- lives.
--
-- KEYS  none of its own
-- ARGV  of the script: what RQ's keys begin with, the name of our executions, now (ISO), now (s), how long a sign of life
--       counts (s), then for each attempt: id, token of its claim, and what the script wants besides
-- Returns nothing: `running(active, argv, width)` gives the functions each and lives.
local function running(active, argv, width)
  local FIRST = 6
  local base, ours, iso, now, ttl = argv[1], argv[2], argv[3], argv[4], tonumber(argv[5])
  local until_then = string.format('%.3f', tonumber(now) + ttl)

  -- Calls one of two functions for each attempt, with what the script wants besides, and returns the numbers that they
  -- return. A key of another type costs its own attempt the show and nobody else.
  local function each(if_it_runs, if_it_has_ended)
    local ids, out = {}, {}
    for at = FIRST, #argv, width do
      ids[#ids + 1] = argv[at]
    end
    for n, holder in ipairs(redis.call('HMGET', active, unpack(ids))) do
      local at = FIRST + (n - 1) * width
      local runs = holder and string.match(holder, '^%d+') == argv[at + 1]
      local ok, code = pcall(runs and if_it_runs or if_it_has_ended, argv[at], unpack(argv, at + 2, at + width - 1))
      out[n] = ok and code or runs and 1 or 0
    end
    return out
  end

  -- The signs of life of an attempt, in RQ's registry only if it stands there or is `new`. From RQ 3.0 on its clients see
  -- by the list of a worker's executions what it runs.
  local function lives(id, queue, worker, new)
    local member = id .. ':' .. ours
    local execution, executions = base .. 'execution:' .. member, base .. 'executions:' .. id
    local of_worker = base .. 'worker:' .. worker .. ':executions'
    redis.call('HSET', base .. 'job:' .. id, 'last_heartbeat', iso)
    redis.call('HSET', execution, 'id', ours, 'job_id', id, 'worker_name', worker, 'last_heartbeat', now)
    redis.call(new and 'HSET' or 'HSETNX', execution, 'created_at', now)
    redis.call('EXPIRE', execution, ttl)
    redis.call('ZADD', executions, until_then, ours)
    redis.call('EXPIRE', executions, ttl)
    redis.call('SADD', of_worker, member)
    redis.call('EXPIRE', of_worker, ttl)
    redis.call('ZADD', base .. 'wip:' .. queue, new and 'CH' or 'XX', until_then, member)
  end
  return each, lives
end
