-- Deletes a part of what a purge took, for good: one step; the caller goes on until nothing is left.
--
-- KEYS  trash, the purge's own hash (see purge; it names the further keys), jobs, history, large
-- ARGV  purge, limit for each key (at most 1000)
-- Returns how many are left.
local limit, left = tonumber(ARGV[2]), 0
local held = redis.call('HGETALL', KEYS[2])
for i = 1, #held, 2 do
  if string.sub(held[i + 1], 1, 1) == '-' then
    local ids = redis.call('ZRANGE', held[i], 0, limit - 1)
    if #ids > 0 then
      redis.call('ZREMRANGEBYRANK', held[i], 0, #ids - 1)
      for k = 3, 5 do
        redis.call('HDEL', KEYS[k], unpack(ids))
      end
    end
    left = left + redis.call('ZCARD', held[i])
  else
    redis.call('LTRIM', held[i], limit, -1)
    left = left + redis.call('LLEN', held[i])
  end
end
if left == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('DEL', KEYS[2])
end
return left
