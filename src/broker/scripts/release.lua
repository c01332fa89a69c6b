-- Deletes the entries of unique keys that nobody holds any more, or will by himself: a step of a walk through all of them.
--
-- KEYS  unique, jobs, history, pending, scheduled, retry, held, active,
--       completed, dead, cancelled
-- ARGV  where the walk stands ('0' to begin), about how many to look at (at most 1000), now (ms)
-- Returns { where the walk goes on ('0' at its end), how many were looked at, how many were deleted }.
local now = tonumber(ARGV[3])
local keys = unique_keys({
  unique = KEYS[1], jobs = KEYS[2], history = KEYS[3], pending = KEYS[4], scheduled = KEYS[5], retry = KEYS[6],
  held = KEYS[7], active = KEYS[8], completed = KEYS[9], dead = KEYS[10], cancelled = KEYS[11],
}, now)
local walk = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local stale = {}
for i = 1, #walk[2], 2 do
  local held, may_return = keys.holder(walk[2][i])
  if not held and not may_return then
    stale[#stale + 1] = walk[2][i]
  end
end
for i = 1, #stale, 1000 do
  redis.call('HDEL', KEYS[1], unpack(stale, i, math.min(i + 999, #stale)))
end
return { walk[1], #walk[2] / 2, #stale }
