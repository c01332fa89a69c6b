-- Ends a pause. The jobs that it held are looked at by the next claim.
--
-- KEYS  pauses, lines
-- ARGV  the task, or '' for the whole queue
-- Returns 1 when there was a pause, else 0.
local ended = redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[2], 'XX', 0, '!' .. ARGV[1])
return ended
