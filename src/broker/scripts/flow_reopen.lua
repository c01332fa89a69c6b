-- Makes jobs of a flow ready once more whose record is gone, or could not be made: each only if it is dead or cancelled as
-- far as the flow knows.
--
-- KEYS  state, ready, due, completed flows, stopped flows
-- ARGV  flow, what the ids of its jobs start with, then the names of the jobs
-- Returns how many became ready.
local CALLBACKS = { on_success = true, on_complete = true, on_death = true }
local COUNT_OF = { d = 'dead', x = 'cancelled' }
local opened = 0
if redis.call('HEXISTS', KEYS[1], 'cancel') == 1 then
  return 0
end
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('SREM', KEYS[2], '')
for i = 3, #ARGV do
  local before = redis.call('HGET', KEYS[1], 's/' .. ARGV[i])
  if before and COUNT_OF[before] then
    redis.call('HSET', KEYS[1], 's/' .. ARGV[i], 'r')
    redis.call('SADD', KEYS[2], ARGV[2] .. ARGV[i])
    if CALLBACKS[ARGV[i]] then
      redis.call('HINCRBY', KEYS[1], 'calls', 1)
    else
      redis.call('HINCRBY', KEYS[1], COUNT_OF[before], -1)
      redis.call('HINCRBY', KEYS[1], 'live', 1)
    end
    opened = opened + 1
  end
end
if opened > 0 then
  redis.call('SADD', KEYS[3], ARGV[1])
  redis.call('ZREM', KEYS[4], ARGV[1])
  redis.call('ZREM', KEYS[5], ARGV[1])
end
return opened
