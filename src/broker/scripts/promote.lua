-- Moves jobs that are due to pending, each to its place in line by the time it was due and its priority.
--
-- KEYS  scheduled, retry, pending
-- ARGV  now (ms), limit (at most 1000), what one step of priority is worth (ms)
-- Returns how many were moved.
local before, limit, ageing = '(' .. string.format('%.0f', ARGV[1] + 1), ARGV[2], tonumber(ARGV[3])
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('ZREM', KEYS[1], '')
local moved = 0
for s = 1, 2 do
  local due = redis.call('ZRANGEBYSCORE', KEYS[s], '-inf', before, 'WITHSCORES', 'LIMIT', 0, limit)
  local ids, places = {}, {}
  for i = 1, #due, 2 do
    -- A score is the due time, and in its fraction the priority: in 32nds, those from 16 on stand for negative ones.
    local score = tonumber(due[i + 1])
    local at = math.floor(score)
    local priority = (score - at) * 32
    if priority >= 16 then
      priority = priority - 32
    end
    ids[#ids + 1] = due[i]
    places[i], places[i + 1] = string.format('%.0f', at + priority * ageing), due[i]
  end
  if #ids > 0 then
    redis.call('ZREM', KEYS[s], unpack(ids))
    redis.call('ZADD', KEYS[3], unpack(places))
    moved = moved + #ids
  end
end
return moved
