-- Writes a new flow down, whole. Jobs that follow nobody are ready at once.
--
-- KEYS  plan, state, ready, all flows, due
-- ARGV  flow, when it was submitted (ms), how many members it has, what the ids of its jobs start with, its outline (JSON),
--       its heading (JSON), then for each member, join and callback: name, how many it waits for (-1 for a callback), the job before its turn
--       (JSON, '' for a join), those that follow it once it is completed, those that follow it once it has ended (names,
--       with spaces)
-- Returns 1, or 0 when a flow of this id exists; it stays as it is.
local FIRST, WIDTH = 7, 5
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
local live = 0
redis.call('HSET', KEYS[1], '', ARGV[5], 'h', ARGV[6])
for at = FIRST, #ARGV, WIDTH do
  local name, waits = ARGV[at], tonumber(ARGV[at + 1])
  if ARGV[at + 2] ~= '' then
    redis.call('HSET', KEYS[1], 'd/' .. name, ARGV[at + 2])
  end
  if ARGV[at + 3] ~= '' then
    redis.call('HSET', KEYS[1], '>/' .. name, ARGV[at + 3])
  end
  if ARGV[at + 4] ~= '' then
    redis.call('HSET', KEYS[1], '~/' .. name, ARGV[at + 4])
  end
  if waits > 0 then
    redis.call('HSET', KEYS[2], 'w/' .. name, waits)
  elseif waits == 0 then
    redis.call('HSET', KEYS[2], 's/' .. name, 'r')
    redis.call('SADD', KEYS[3], ARGV[4] .. name)
    live = live + 1
  end
end
redis.call('HSET', KEYS[2], 'total', ARGV[3], 'completed', 0, 'dead', 0, 'cancelled', 0, 'live', live, 'calls', 0)
redis.call('ZADD', KEYS[4], ARGV[2], ARGV[1])
redis.call('SADD', KEYS[5], ARGV[1])
return 1
