-- Ends a node's lease on one queue at once: when it stops, or when its successor on the same machine knows it is dead.
-- What it still holds is then the next sweep's to take over.
--
-- KEYS  leases
-- ARGV  node
-- Returns 1 when it had a lease.
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('ZREM', KEYS[1], '')
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  redis.call('ZADD', KEYS[1], 0, ARGV[1])
  return 1
end
return 0
