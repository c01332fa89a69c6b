-- Ends a ready job of a flow that cannot start: it is a dead job of its queue, with its reason, and its flow is told. Where
-- a job of its id exists already that one is left as it is, and the flow is told all the same.
--
-- KEYS  the flow's ready jobs, words, jobs, history, large, dead, counters
-- ARGV  id, record (JSON), its arguments if they are too large for the record (JSON, else ''), history (JSON), now (ms),
--       what the flow is told (JSON)
-- Returns 1, or 0 when it is not ready: it was started or ended before, or is not to start any more.
if redis.call('SREM', KEYS[1], ARGV[1]) == 0 then
  return 0
end
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then
  redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
  redis.call('HSET', KEYS[4], ARGV[1], ARGV[4])
  if ARGV[3] ~= '' then
    redis.call('HSET', KEYS[5], ARGV[1], ARGV[3])
  end
  redis.call('ZADD', KEYS[6], ARGV[5], ARGV[1])
  redis.call('HINCRBY', KEYS[7], 'dead', 1)
end
redis.call('RPUSH', KEYS[2], ARGV[6])
return 1
