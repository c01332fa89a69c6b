-- Enqueues the job of one fire of a schedule, once over all nodes, and remembers the fire.
--
-- KEYS  fires, jobs, pending, scheduled, retry, active, large, held
-- ARGV  schedule, fire (ms), id, record (JSON), now (ms), its place in line, its arguments if they are too large for the
--       record (JSON, else ''), 'skip' to leave the fire out while the job of an earlier one
--       has not ended (else '')
-- Returns 1 enqueued, 0 this fire or a later one was done before, 2 left out because an earlier job has not ended.
local schedule, fire, id, now = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[5])
local last = tonumber(redis.call('HGET', KEYS[1], schedule) or 0)
-- A fire from the future was written by a clock that was wrong: it must not silence the schedule until then.
if last >= fire and last <= now + 60000 then
  return 0
end
redis.call('HSET', KEYS[1], schedule, ARGV[2])
-- A schedule's name holds no space, so this field is nobody's name.
local running = schedule .. ' job'
if ARGV[8] == 'skip' then
  local earlier = redis.call('HGET', KEYS[1], running)
  if earlier and (redis.call('HEXISTS', KEYS[6], earlier) == 1 or redis.call('ZSCORE', KEYS[3], earlier)
    or redis.call('ZSCORE', KEYS[4], earlier) or redis.call('ZSCORE', KEYS[5], earlier)
    or redis.call('ZSCORE', KEYS[8], earlier)) then
    return 2
  end
end
redis.call('HSET', KEYS[1], running, id)
if redis.call('HSETNX', KEYS[2], id, ARGV[4]) == 1 then
  redis.call('ZADD', KEYS[3], ARGV[6], id)
  if ARGV[7] ~= '' then
    redis.call('HSET', KEYS[7], id, ARGV[7])
  end
end
return 1
