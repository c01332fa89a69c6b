-- Stands before scripts that end attempts: what an attempt drew from the buckets of limits, and how it goes back. It stands
-- behind the holder in active: `token node started`, and then, parted by blanks, BUCKET or BUCKET=points.
--
-- KEYS  none
-- ARGV  none: the keys `used` and `lines` are handed to `give_back`
-- Returns nothing: defines `drawn_by`, `add_draws` and `give_back`.

-- What the attempt of this holder drew ('' if nothing); nil if the job is not active under it.
local function drawn_by(active, own)
  if active == own then
    return ''
  end
  local length = #own
  if active and string.byte(active, length + 1) == 32 and string.sub(active, 1, length) == own then
    return string.sub(active, length + 2)
  end
  return nil
end

-- Adds what was drawn to the points by bucket.
local function add_draws(drawn, points)
  if drawn ~= '' and not string.find(drawn, '[ =]') then
    points[drawn] = (points[drawn] or 0) + 1
    return
  end
  for draw in string.gmatch(drawn, '%S+') do
    local bucket, some = string.match(draw, '^([^=]*)=(%d+)$')
    bucket = bucket or draw
    points[bucket] = (points[bucket] or 0) + tonumber(some or 1)
  end
end

-- Gives points back, and lets the lines that wait for them be looked at.
local function give_back(used, lines, points)
  local buckets, n = {}, 0
  for bucket in pairs(points) do
    n = n + 1
    buckets[n] = bucket
  end
  if n == 0 then
    return
  end
  local rest, empty = {}, {}
  for i, before in ipairs(redis.call('HMGET', used, unpack(buckets))) do
    local bucket = buckets[i]
    local left = tonumber(before or 0) - points[bucket]
    if left > 0 then
      local r = #rest
      rest[r + 1], rest[r + 2] = bucket, string.format('%d', left)
    else
      empty[#empty + 1] = bucket
    end
  end
  if #rest > 0 then
    redis.call('HSET', used, unpack(rest))
  end
  if #empty > 0 then
    redis.call('HDEL', used, unpack(empty))
  end
  if lines then
    local due = {}
    for i, bucket in ipairs(buckets) do
      due[2 * i - 1], due[2 * i] = 0, bucket
    end
    redis.call('ZADD', lines, 'XX', unpack(due))
  end
end
