-- Enqueues the job of one fire of a schedule, once over all nodes, and remembers the fire.
--
-- KEYS  fires, jobs, pending, scheduled, retry, active
-- ARGV  schedule, fire (ms), id, record (JSON), score (ms), what the ids of its jobs start with when overlaps are to
--       be left out (else '')
-- Returns 1 enqueued, 0 this fire or a later one was done before, 2 left out because the previous job has not ended.
local last = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or 0)
if last >= tonumber(ARGV[2]) then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if ARGV[6] ~= '' then
  local previous = ARGV[6] .. string.format('%.0f', last)
  if redis.call('HEXISTS', KEYS[6], previous) == 1 or redis.call('ZSCORE', KEYS[3], previous)
    or redis.call('ZSCORE', KEYS[4], previous) or redis.call('ZSCORE', KEYS[5], previous) then
    return 2
  end
end
redis.call('HSETNX', KEYS[2], ARGV[3], ARGV[4])
redis.call('ZADD', KEYS[3], ARGV[5], ARGV[3])
return 1
