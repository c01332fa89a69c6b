-- Renews the locks by which RQ knows the scheduler of its queues, and takes those that nobody has.
--
-- KEYS  the locks, then a sorted set of ours
-- ARGV  who we are in them, how long they last (s)
-- Returns for each: 1 if it is ours, else 0.
local me, lasts = ARGV[1], ARGV[2]
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('ZREM', KEYS[#KEYS], '')
local locks = { unpack(KEYS, 1, #KEYS - 1) }
local out = {}
for n, holder in ipairs(redis.call('MGET', unpack(locks))) do
  if holder == me then
    redis.call('EXPIRE', locks[n], lasts)
  elseif not holder then
    redis.call('SET', locks[n], me, 'EX', lasts)
  end
  out[n] = (not holder or holder == me) and 1 or 0
end
return out
