-- The signs of life of RQ's workers, all in one call: what is sent does not grow with their number.
--
-- KEYS  the hashes of the workers
-- ARGV  now (ISO), how long they are believed to live (s)
-- Returns for each: 1, or 0 if Redis does not know it any more.
local out = {}
for n, worker in ipairs(KEYS) do
  -- Redis may be full: an expiry is taken then, and what follows it too.
  out[n] = redis.call('EXPIRE', worker, ARGV[2])
  if out[n] == 1 then
    redis.call('HSET', worker, 'last_heartbeat', ARGV[1])
  end
end
return out
