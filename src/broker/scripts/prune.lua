-- Deletes ended jobs that are older than their retention or more than it keeps, oldest first, a bounded number at a
-- time. One whose producer is owed an answer stays until that is paid or its age is over; but debts that nobody pays must
-- not fill Redis.
--
-- KEYS  completed, dead, cancelled, jobs, history, large, outbox, trash, unique
-- ARGV  completed before (ms), dead and cancelled before (ms), completed to keep, dead and cancelled to keep,
--       limit for each set, now (ms)
-- Returns { how many were deleted, purges whose time is over, how many unique keys are noted, then for each set how many jobs it holds and when the newest
-- of them ended (ms) }.
local DEBTS = 100000
local limit, deleted, sets, spare = tonumber(ARGV[5]), 0, {}, redis.call('HLEN', KEYS[7]) <= DEBTS
for s = 1, 3 do
  local before, keep = ARGV[2], tonumber(ARGV[4])
  if s == 1 then
    before, keep = ARGV[1], tonumber(ARGV[3])
  end
  local surplus = math.max(redis.call('ZCARD', KEYS[s]) - keep, redis.call('ZCOUNT', KEYS[s], '-inf', '(' .. before))
  if surplus > 0 then
    local old = redis.call('ZRANGE', KEYS[s], 0, math.min(surplus, limit) - 1, 'WITHSCORES')
    local ids = {}
    for i = 1, #old, 2 do
      local is_old = tonumber(old[i + 1]) < tonumber(before)
      if is_old or not spare or redis.call('HEXISTS', KEYS[7], old[i]) == 0 then
        ids[#ids + 1] = old[i]
      end
    end
    if #ids > 0 then
      redis.call('ZREM', KEYS[s], unpack(ids))
      for k = 4, 6 do
        redis.call('HDEL', KEYS[k], unpack(ids))
      end
    end
    deleted = deleted + #ids
  end
  sets[#sets + 1] = redis.call('ZCARD', KEYS[s])
  sets[#sets + 1] = redis.call('ZREVRANGE', KEYS[s], 0, 0, 'WITHSCORES')[2] or '0'
end
return { deleted, redis.call('ZCOUNT', KEYS[8], '-inf', ARGV[6]), redis.call('HLEN', KEYS[9]), unpack(sets) }
