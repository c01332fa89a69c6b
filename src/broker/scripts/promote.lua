-- Moves jobs that are due to pending, each in its place by the time it was due.
--
-- KEYS  scheduled, retry, pending
-- ARGV  now (ms), limit
-- Returns how many were moved.
local moved = 0
for s = 1, 2 do
  local due = redis.call('ZRANGEBYSCORE', KEYS[s], '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', 0, ARGV[2])
  for i = 1, #due, 2 do
    redis.call('ZREM', KEYS[s], due[i])
    redis.call('ZADD', KEYS[3], due[i + 1], due[i])
    moved = moved + 1
  end
end
return moved
