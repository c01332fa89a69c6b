-- Deletes ended jobs that are older than their retention or more than it keeps, oldest first, a bounded number at a
-- time.
--
-- KEYS  completed, dead, cancelled, jobs, history, large
-- ARGV  completed before (ms), dead and cancelled before (ms), completed to keep, dead and cancelled to keep,
--       limit for each set
-- Returns how many were deleted.
local limit, deleted = tonumber(ARGV[5]), 0
for s = 1, 3 do
  local before, keep = ARGV[2], tonumber(ARGV[4])
  if s == 1 then
    before, keep = ARGV[1], tonumber(ARGV[3])
  end
  local surplus = math.max(redis.call('ZCARD', KEYS[s]) - keep, redis.call('ZCOUNT', KEYS[s], '-inf', '(' .. before))
  if surplus > 0 then
    local old, ids = redis.call('ZPOPMIN', KEYS[s], math.min(surplus, limit)), {}
    for i = 1, #old, 2 do
      ids[#ids + 1] = old[i]
    end
    redis.call('HDEL', KEYS[4], unpack(ids))
    redis.call('HDEL', KEYS[5], unpack(ids))
    redis.call('HDEL', KEYS[6], unpack(ids))
    deleted = deleted + #ids
  end
end
return deleted
