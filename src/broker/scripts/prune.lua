-- Deletes ended jobs that are older than their retention, oldest first, a bounded number at a time.
--
-- KEYS  completed, dead, cancelled, jobs, history
-- ARGV  completed before (ms), dead and cancelled before (ms), limit for each set
-- Returns how many were deleted.
local deleted = 0
for s = 1, 3 do
  local before = s == 1 and ARGV[1] or ARGV[2]
  local old = redis.call('ZRANGEBYSCORE', KEYS[s], '-inf', '(' .. before, 'LIMIT', 0, ARGV[3])
  if #old > 0 then
    redis.call('ZREM', KEYS[s], unpack(old))
    redis.call('HDEL', KEYS[4], unpack(old))
    redis.call('HDEL', KEYS[5], unpack(old))
    deleted = deleted + #old
  end
end
return deleted
