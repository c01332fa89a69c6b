-- A foreign producer has its answer: it is not owed any more, unless a newer settle owes it another.
--
-- KEYS  outbox
-- ARGV  id, token of the settle that was answered
-- Returns 1 when the debt is paid, 0 when there was none or a newer one.
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
  return redis.call('HDEL', KEYS[1], ARGV[1])
end
return 0
