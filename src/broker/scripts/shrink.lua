-- Measures ended jobs from the newest on, and deletes those that are beyond a number of bytes: one step of a walk, which
-- its caller goes on with until the whole set is measured. One whose producer is owed an answer stays until that is
-- paid; but debts that nobody pays must not fill Redis.
--
-- KEYS  the set of ended jobs, jobs, history, large, outbox, notes
-- ARGV  rank to go on from (0 is the newest), how many to look at, bytes that are left
-- Returns { how many were looked at and stay, bytes that are left, how many were deleted }.
local DEBTS = 100000
local spare = redis.call('HLEN', KEYS[5]) <= DEBTS
local from, limit, left = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local ids = redis.call('ZREVRANGE', KEYS[1], from, from + limit - 1)
local gone = {}
for _, id in ipairs(ids) do
  for k = 2, 4 do
    left = left - redis.call('HSTRLEN', KEYS[k], id)
  end
  left = left - redis.call('HSTRLEN', KEYS[6], id)
  -- Once the room is used up, everything that is older goes.
  if left < 0 and not (spare and redis.call('HEXISTS', KEYS[5], id) == 1) then
    gone[#gone + 1] = id
  end
end
if #gone > 0 then
  redis.call('ZREM', KEYS[1], unpack(gone))
  for k = 2, 4 do
    redis.call('HDEL', KEYS[k], unpack(gone))
  end
  redis.call('HDEL', KEYS[6], unpack(gone))
end
return { #ids - #gone, string.format('%.0f', left), #gone }
