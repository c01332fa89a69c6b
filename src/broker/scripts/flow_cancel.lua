-- Cancels a flow: what has not been put into a queue never is. What has is cancelled by whoever finds the flow due.
--
-- KEYS  state, ready, due, stopped flows
-- ARGV  flow, what the ids of its jobs start with, now (ms), who cancels (JSON)
-- Returns 1 done, 0 it was cancelled before, 2 all its jobs are completed, -1 there is no such flow.
local head = redis.call('HMGET', KEYS[1], 'total', 'completed', 'cancel', 'live', 'calls', 'cancelled')
if not head[1] then
  return -1
elseif head[3] then
  return 0
elseif head[1] == head[2] then
  return 2
end
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('SREM', KEYS[2], '')
local CALLBACKS = { on_success = true, on_complete = true, on_death = true }
local live, calls, cancelled = tonumber(head[4]), tonumber(head[5]), tonumber(head[6])
for _, id in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local name = string.sub(id, #ARGV[2] + 1)
  if redis.call('HGET', KEYS[1], 's/' .. name) == 'r' then
    redis.call('HSET', KEYS[1], 's/' .. name, 'x')
    if CALLBACKS[name] then
      calls = calls - 1
    else
      live, cancelled = live - 1, cancelled + 1
    end
  end
end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'cancel', ARGV[4], 'live', live, 'calls', calls, 'cancelled', cancelled)
redis.call('SADD', KEYS[3], ARGV[1])
if live == 0 and calls == 0 then
  redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
end
return 1
