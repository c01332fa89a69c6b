-- Puts a part of what a purge took back where it was: one step; the caller goes on until nothing is left. What came
-- meanwhile stays, behind what was there before. A job whose producer has sent it again since stands elsewhere already,
-- and is not put back.
--
-- KEYS  trash, the purge's own hash (see purge; it names the further keys), active, pending, scheduled, retry, completed,
--       dead, cancelled, held
-- ARGV  purge, limit for each key (at most 1000)
-- Returns { how many were put back, how many are left }; { -1, 0 } when there is no such purge.
local limit, back, left = tonumber(ARGV[2]), 0, 0
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return { -1, 0 }
end
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('ZREM', KEYS[1], '')

local function stands(id)
  if redis.call('HEXISTS', KEYS[3], id) == 1 then
    return true
  end
  for k = 4, 10 do
    if redis.call('ZSCORE', KEYS[k], id) then
      return true
    end
  end
  return false
end

local held = redis.call('HGETALL', KEYS[2])
for i = 1, #held, 2 do
  local from, side, to = held[i], string.sub(held[i + 1], 1, 1), string.sub(held[i + 1], 2)
  if side == '-' then
    local some = redis.call('ZRANGE', from, 0, limit - 1, 'WITHSCORES')
    for j = 1, #some, 2 do
      if not stands(some[j]) then
        redis.call('ZADD', to, some[j + 1], some[j])
        back = back + 1
      end
    end
    if #some > 0 then
      redis.call('ZREMRANGEBYRANK', from, 0, #some / 2 - 1)
    end
    left = left + redis.call('ZCARD', from)
  else
    -- From the end that came last, so that what came first is served first again.
    local far, near = side == 'R' and 'LEFT' or 'RIGHT', side == 'R' and 'RIGHT' or 'LEFT'
    for _ = 1, math.min(limit, redis.call('LLEN', from)) do
      redis.call('LMOVE', from, to, far, near)
      back = back + 1
    end
    left = left + redis.call('LLEN', from)
  end
end
if left == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('DEL', KEYS[2])
end
return { back, left }
