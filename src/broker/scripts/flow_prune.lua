-- Deletes a flow that came to rest before a time and has not moved since.
--
-- KEYS  the flows among which it rests (completed or stopped), all flows, due, plan, state, ready
-- ARGV  flow, the time (ms)
-- Returns 1 when it was deleted, else 0.
local since = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not since or tonumber(since) >= tonumber(ARGV[2]) then
  return 0
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('SREM', KEYS[3], ARGV[1])
redis.call('UNLINK', KEYS[4], KEYS[5], KEYS[6])
return 1
