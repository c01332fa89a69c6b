-- Stands before claim: the lines in which jobs are held, out of the way of the others. `!TASK` while a task is paused,
-- `LIMIT…` while a bucket of a limit has no room, `~TENANT` until it is a tenant's turn. A job in `held` is held; what
-- stands in a line and not there has gone another way, and is passed over. `lines` says when a line is to be looked at.
--
-- KEYS  none
-- ARGV  none: `keys` are those of claim, by name
-- Returns nothing: `lines_of(keys, clock)` gives functions; `say` asks for another claim at once where that is 'more'.
local function lines_of(keys, clock)
  -- Jobs that come back from a line at a time; how far past jobs that have gone; lines looked at by one call.
  local BATCH, LOOK, LINES = 1000, 200, 100
  -- A line is looked at anew so often, whatever happens (ms); when it may go on as soon as others have.
  local ANYWAY, SOON = 60000, 1000
  local lines = { say = '' }
  -- Held by this call: the places in each line, and when to look at it; other buckets that a held job would have drawn from.
  local held, whens, others, hits = {}, {}, {}, 0
  -- Those of them whose place is not known yet: the line, where the place belongs in it, and the id.
  local unplaced, asked = {}, {}

  local function come_back(name, most, later)
    local line = keys.held .. '/' .. name
    local back = most > 0 and redis.call('ZRANGE', line, 0, most + LOOK - 1) or {}
    if #back > 0 then
      local places, put, live, passed = redis.call('ZMSCORE', keys.held, unpack(back)), {}, {}, 0
      for i, id in ipairs(back) do
        if #live == most then
          break
        end
        passed = i
        if places[i] then
          local n = #put
          put[n + 1], put[n + 2], live[#live + 1] = places[i], id, id
        end
      end
      redis.call('ZREMRANGEBYRANK', line, 0, passed - 1)
      if #live > 0 then
        redis.call('ZADD', keys.pending, unpack(put))
        redis.call('ZREM', keys.held, unpack(live))
      end
      if #live < most then
        later = 0
      end
    end
    if redis.call('EXISTS', line) == 0 then
      redis.call('ZREM', keys.lines, name)
      return false
    end
    redis.call('ZADD', keys.lines, later, name)
    lines.say = later == 0 and 'more' or lines.say
    return true
  end

  -- Looks at the lines whose time has come. `paused` are tasks; tenants take turns if `fair`.
  function lines.look(paused, fair, limits)
    local due = redis.call('ZRANGEBYSCORE', keys.lines, '-inf', clock, 'LIMIT', 0, LINES)
    for _, name in ipairs(due) do
      local kind, limit = string.sub(name, 1, 1), limits.limit_of(name)
      if name == '*' then
        redis.call('ZREM', keys.lines, name)
      elseif kind == '~' and fair then
        redis.call('ZADD', keys.lines, '+inf', name)
      elseif kind == '!' and paused[string.sub(name, 2)] then
        redis.call('ZADD', keys.lines, clock + ANYWAY, name)
      elseif kind == '!' or kind == '~' or not limit then
        if not come_back(name, BATCH, 0) and kind == '~' then
          redis.call('ZREM', keys.turns, name)
        end
      else
        local bucket = limits.know(name)
        -- So that the room is known exactly.
        limits.blocked(bucket, math.huge)
        local later = limits.blocked(bucket, 1)
        come_back(name, later and 0 or math.min(limits.room[bucket], BATCH), later or clock + SOON)
      end
    end
    lines.say = #due == LINES and 'more' or lines.say
  end

  local function hold(name, when, id, place)
    local line = held[name] or {}
    local n = #line
    line[n + 1], line[n + 2], held[name] = place or '', id, line
    whens[name] = math.min(whens[name] or when, when)
    if not place then
      local m = #unplaced
      unplaced[m + 1], unplaced[m + 2], asked[#asked + 1] = line, n + 1, id
    end
  end

  -- Asks for the places of those who were held without one, before they leave the set in which they stand.
  function lines.place(set)
    if #asked > 0 then
      for i, place in ipairs(redis.call('ZMSCORE', set, unpack(asked))) do
        unplaced[2 * i - 1][unplaced[2 * i]] = place
      end
      unplaced, asked = {}, {}
    end
  end

  function lines.hold_paused(task, id, place)
    hold('!' .. task, clock + ANYWAY, id, place)
  end

  -- Holds what the bucket at `at` of its draws has no room for. It does not fill the room of its other buckets.
  function lines.hold_limited(limits, t, at, when, id, place)
    hold(limits.names[limits.draws[at]], when, id, place)
    hits = hits + 1
    for o = limits.firsts[t], limits.firsts[t + 1] - 1, 2 do
      if o ~= at then
        others[limits.draws[o]] = true
      end
    end
  end

  -- Notes who is held, after the limits know what was taken.
  function lines.write(limits)
    for name, line in pairs(held) do
      redis.call('ZADD', keys.held .. '/' .. name, unpack(line))
      redis.call('ZADD', keys.held, unpack(line))
      redis.call('ZADD', keys.lines, 'LT', whens[name], name)
    end
    if hits > 0 then
      redis.call('HINCRBY', keys.counters, 'held', hits)
    end
    for bucket in pairs(others) do
      local name = limits.names[bucket]
      if name ~= '*' and not limits.blocked(bucket, 1) and redis.call('ZADD', keys.lines, 'XX', 'CH', 0, name) == 1 then
        lines.say = 'more'
      end
    end
  end

  return lines
end
