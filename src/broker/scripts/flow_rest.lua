-- Takes a flow off those that are due, unless there is more to do for it than its caller knew of.
--
-- KEYS  due, state, ready
-- ARGV  flow, '1' if the caller knew that it was cancelled, else '0'
-- Returns 1 when it is due no more, else 0.
if redis.call('SCARD', KEYS[3]) > 0 or redis.call('HEXISTS', KEYS[2], 'cancel') ~= tonumber(ARGV[2]) then
  return 0
end
redis.call('SREM', KEYS[1], ARGV[1])
return 1
