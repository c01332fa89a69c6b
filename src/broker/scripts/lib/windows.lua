-- Stands before scripts that count starts: what has started in sliding windows, by bucket.
--
-- Time is cut into quanta, a thousandth of a window each, and into eras, each a window long. For each window and era there
-- is a hash of the starts of each bucket, and for each bucket a hash of its starts by quantum. What has started in this era
-- and the one before is never less than what has started in the window: so as long as that leaves room, one look at two
-- hashes tells, for all buckets at once. Else the quanta are counted. What starts in a quantum counts as if it had
-- started at its end, so no window ever holds more than it may.
--
-- KEYS  none
-- ARGV  none: `starts`, where the time is noted and beside which the hashes stand, and the time (ms) are handed over
-- Returns nothing: `windows(starts, clock)` gives the functions open, look, reckon and write.
local function windows(starts, clock)
  local QUANTA = 1000
  -- Time that is so far ahead was written by a clock that was wrong (ms).
  local AHEAD = 10000
  local now, wrong, since, latest = nil, nil, nil, nil

  -- Reads the time, once. The clocks of two nodes may differ a little: here time does not run backwards. Where it was wrong,
  -- what was written then counts as if it had started at the moment when that was found.
  local function time()
    if now then
      return
    end
    local noted = redis.call('HMGET', starts, 'clock', 'wrong', 'since')
    latest, wrong, since = tonumber(noted[1] or 0), noted[2] and tonumber(noted[2]), noted[3] and tonumber(noted[3])
    now = math.max(clock, latest)
    if latest - clock > AHEAD then
      now, wrong, since, latest = clock, latest, clock, clock
      local text = string.format('%.0f', clock)
      redis.call('HSET', starts, 'clock', text, 'wrong', string.format('%.0f', wrong), 'since', text)
    end
  end

  local function era_of(window, at)
    return window.prefix .. string.format('%.0f', math.floor(at / window.era))
  end

  -- A window of so many points in so many milliseconds.
  local function open(most, length)
    time()
    local window = { most = tonumber(most), length = tonumber(length), before = {}, here = {}, ghosts = {}, frees = {} }
    window.quantum = math.max(1, math.floor(window.length / QUANTA))
    window.era = window.length + window.quantum
    window.prefix = starts .. '/' .. length .. '/'
    window.now, window.past = era_of(window, now), era_of(window, now - window.era)
    if wrong and now < since + window.era then
      for _, at in ipairs({ wrong, wrong - window.era }) do
        local era = era_of(window, at)
        if era ~= window.now and era ~= window.past then
          window.ghosts[#window.ghosts + 1] = era
        end
      end
    end
    return window
  end

  -- Reads at once what at most has started of each bucket: `list` has their numbers, `buckets` their names.
  local function look(window, list, buckets)
    local before, here = window.before, window.here
    local past = redis.call('HMGET', window.past, unpack(buckets))
    local current = redis.call('HMGET', window.now, unpack(buckets))
    for i = 1, #list do
      local b = list[i]
      before[b], here[b] = past[i] and tonumber(past[i]) or 0, current[i] and tonumber(current[i]) or 0
    end
    for _, era in ipairs(window.ghosts) do
      for i, points in ipairs(redis.call('HMGET', era, unpack(buckets))) do
        before[list[i]] = before[list[i]] + tonumber(points or 0)
      end
    end
  end

  -- Points of a bucket in the quanta of an era that have not left the window, and when the first of them does.
  local function count(window, era, bucket)
    local quanta, points, free = redis.call('HGETALL', era .. '/' .. bucket), 0, nil
    for i = 1, #quanta, 2 do
      local leaves = (tonumber(quanta[i]) + 1) * window.quantum - 1 + window.length
      if leaves > now then
        points, free = points + tonumber(quanta[i + 1]), math.min(free or leaves, leaves)
      end
    end
    return points, free
  end

  -- Counts the starts of bucket `b` exactly. What of the era before has left the window never comes back.
  local function reckon(window, b, bucket)
    local before, free = count(window, window.past, bucket)
    local here, later = count(window, window.now, bucket)
    if #window.ghosts == 0 and before < window.before[b] then
      redis.call('HSET', window.past, bucket, string.format('%d', before))
    end
    free = free or later
    for _, era in ipairs(window.ghosts) do
      before = before + tonumber(redis.call('HGET', era, bucket) or 0)
      free = free or since + window.era
    end
    window.before[b], window.here[b], window.frees[b] = before, here, free
  end

  -- Writes down what has started: `list` has the numbers of the buckets, `taken` the points of each.
  local function write(window, list, names, taken)
    local sums, quantum = {}, string.format('%.0f', math.floor(now / window.quantum))
    local keep = string.format('%.0f', 2 * window.era + AHEAD)
    for i = 1, #list do
      local b = list[i]
      local bucket, points, here = names[b], taken[b], window.here[b]
      sums[2 * i - 1], sums[2 * i] = bucket, string.format('%d', here + points)
      local quanta = window.now .. '/' .. bucket
      redis.call('HINCRBY', quanta, quantum, points == 1 and '1' or string.format('%d', points))
      if here == 0 then
        redis.call('PEXPIRE', quanta, keep)
      end
    end
    redis.call('HSET', window.now, unpack(sums))
    redis.call('PEXPIRE', window.now, keep)
    if now > latest then
      redis.call('HSET', starts, 'clock', string.format('%.0f', now))
      latest = now
    end
  end

  return { open = open, look = look, reckon = reckon, write = write }
end
