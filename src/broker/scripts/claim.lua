-- Takes jobs for one attempt each: from pending to active under a fresh fencing token, and renews the node's lease.
-- All claims of one call share the token: a claim is told from every other by its job and its token together.
--
-- Jobs that may not start now are held, out of the way of the others. They wait in lines: `!TASK` while a task is paused,
-- `LIMIT…` while a bucket of a limit has no room, `~TENANT` until it is a tenant's turn. A job in `held` is held; what
-- stands in a line and not there has gone another way, and is passed over. `lines` says when a line is to be looked at.
--
-- KEYS  pending, jobs, history, active, leases, counters, pauses, held (and, beside it, the lines held/NAME), lines,
--       turns, used, starts (and, beside it, the windows starts/MS/BUCKET)
-- ARGV  now (ms), node, end of lease (ms), how many at most; where the queue has limits also: '1' if tenants take turns
--       (else ''), then for each limit: its name, concurrency (or ''), points of each job (or '': as its record says),
--       how many windows, and for each of these: points, length (ms)
-- Returns { 'paused' | 'limited' (the whole queue has no room; `lines` says when) | 'more' (there may be more at once)
-- | '', token or '', record, history or '' … }, with a record and a history for each claim.
local now, node, lease, want = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('HDEL', KEYS[4], '')
-- Only ever later: this call may have waited on its way while a heartbeat overtook it.
redis.call('ZADD', KEYS[5], 'GT', lease, node)

local paused, some_paused = {}, false
for _, task in ipairs(redis.call('HKEYS', KEYS[7])) do
  if task == '' then
    return { 'paused', '' }
  end
  paused[task], some_paused = true, true
end

local ids, records, draws, say = {}, {}, {}, ''

-- Where something may be held: fills `ids`, `records` and `draws`, and says what is to be returned first.
local function choose()
  -- Jobs that come back from a line at a time; how far a claim looks past jobs that it holds; lines looked at by one call.
  local BATCH, LOOK, ROUNDS, LINES = 1000, 200, 10, 100
  -- A line is looked at anew so often, whatever happens (ms): in any case; when it may go on as soon as others have.
  local ANYWAY, SOON = 60000, 1000
  -- A window whose last start is so far ahead was written by a clock that was wrong (ms).
  local AHEAD = 10000
  local clock, fair, word = tonumber(now), ARGV[5] == '1', ''

  local limits, at, holds = {}, 6, some_paused
  while at <= #ARGV do
    local limit = { name = ARGV[at], most = tonumber(ARGV[at + 1]), points = tonumber(ARGV[at + 2]), windows = {} }
    limit.cap = limit.most or math.huge
    local windows = tonumber(ARGV[at + 3])
    at = at + 4
    for w = 1, windows do
      limit.windows[w] = { most = tonumber(ARGV[at]), length = tonumber(ARGV[at + 1]) }
      -- Who takes more than there is, since the bound was lowered, runs alone.
      limit.cap = math.min(limit.cap, limit.windows[w].most)
      at = at + 2
    end
    limits[limit.name] = limit
    holds = holds or limit.name ~= '*'
  end
  local whole = limits['*']

  local function limit_of(bucket)
    return limits[bucket] or limits[string.match(bucket, '^([^/]*/[^/]*)/') or '']
  end

  -- What has started in a window. No entry is younger than its points, so no window ever holds more than it may.
  local function look_into(bucket, window)
    local seen = { key = KEYS[12] .. '/' .. string.format('%.0f', window.length) .. '/' .. bucket, total = 0, now = clock }
    seen.room = window.most
    local last = redis.call('ZRANGE', seen.key, -1, -1, 'WITHSCORES')
    if not last[1] then
      return seen
    end
    -- The clocks of two nodes may differ a little: here time does not run backwards.
    seen.now = math.max(clock, tonumber(last[2]))
    local wrong = seen.now - clock > AHEAD
    redis.call('ZREMRANGEBYSCORE', seen.key, '-inf', seen.now - window.length)
    local first = redis.call('ZRANGE', seen.key, 0, 0, 'WITHSCORES')
    if first[1] then
      seen.member = last[1]
      local total, points, since = string.match(last[1], '^(%d+) (%d+) (%d+)$')
      seen.total, seen.points, seen.since = tonumber(total), tonumber(points), tonumber(since)
      local first_total, first_points = string.match(first[1], '^(%d+) (%d+)')
      local inside = seen.total - tonumber(first_total) + tonumber(first_points)
      seen.room, seen.free = window.most - inside, tonumber(first[2]) + window.length
      if wrong then
        -- As if all of it had started just now.
        seen.now, seen.points, seen.since, seen.free = clock, inside, clock, clock + window.length
        seen.member = string.format('%.0f %.0f %.0f', seen.total, inside, clock)
        redis.call('DEL', seen.key)
        redis.call('ZADD', seen.key, clock, seen.member)
      end
    end
    return seen
  end

  -- States of buckets, and the points in use of those that were read ahead.
  local states, used_of = {}, {}
  local function state_of(bucket, limit)
    local state = states[bucket]
    if not state then
      state = { limit = limit, taken = 0, windows = {} }
      if limit.most then
        -- A whole queue whose jobs all count alike is counted by what runs.
        state.counted = not (bucket == '*' and limit.points == 1)
        if not state.counted then
          state.used = redis.call('HLEN', KEYS[4])
        else
          state.used = used_of[bucket] or tonumber(redis.call('HGET', KEYS[11], bucket) or 0)
        end
        state.room = limit.most - state.used
      end
      for w, window in ipairs(limit.windows) do
        state.windows[w] = look_into(bucket, window)
      end
      states[bucket] = state
    end
    return state
  end

  -- When to look again whether there is room for so many points; nil when there is.
  local function blocked(state, points)
    local when = nil
    if state.room and state.room < points then
      when = clock + ANYWAY
    end
    local free = nil
    for _, seen in ipairs(state.windows) do
      if seen.room < points then
        free = math.max(free or 0, seen.free or clock + SOON)
      end
    end
    return free or when
  end

  local function take(state, points)
    state.taken = state.taken + points
    if state.room then
      state.room = state.room - points
    end
    for _, seen in ipairs(state.windows) do
      seen.room = seen.room - points
    end
  end

  -- The points that may be taken now.
  local function room_of(state)
    local room = state.room or math.huge
    for _, seen in ipairs(state.windows) do
      room = math.min(room, seen.room)
    end
    return room
  end

  local function come_back(name, most, later)
    local line = KEYS[8] .. '/' .. name
    local back = most > 0 and redis.call('ZRANGE', line, 0, most + LOOK - 1) or {}
    if #back > 0 then
      local places, put, live, passed = redis.call('ZMSCORE', KEYS[8], unpack(back)), {}, {}, 0
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
        redis.call('ZADD', KEYS[1], unpack(put))
        redis.call('ZREM', KEYS[8], unpack(live))
      end
      if #live < most then
        later = 0
      end
    end
    if redis.call('EXISTS', line) == 0 then
      redis.call('ZREM', KEYS[9], name)
    else
      redis.call('ZADD', KEYS[9], later, name)
      word = later == 0 and 'more' or word
    end
  end

  local function look_at(name)
    local kind = string.sub(name, 1, 1)
    if name == '*' then
      redis.call('ZREM', KEYS[9], name)
    elseif kind == '~' and fair then
      redis.call('ZADD', KEYS[9], '+inf', name)
    elseif kind == '!' and paused[string.sub(name, 2)] then
      redis.call('ZADD', KEYS[9], clock + ANYWAY, name)
    elseif kind == '!' or kind == '~' or not limit_of(name) then
      come_back(name, BATCH, 0)
      if kind == '~' and redis.call('ZSCORE', KEYS[9], name) == false then
        redis.call('ZREM', KEYS[10], name)
      end
    else
      local state = state_of(name, limit_of(name))
      local later = blocked(state, 1)
      come_back(name, later and 0 or math.min(room_of(state), BATCH), later or clock + SOON)
    end
  end

  local due = redis.call('ZRANGEBYSCORE', KEYS[9], '-inf', now, 'LIMIT', 0, LINES)
  for _, name in ipairs(due) do
    look_at(name)
  end
  if #due == LINES then
    word = 'more'
  end

  -- Held by this call: the places in each line, and when to look at it.
  local lines, whens, others, stopped, hits = {}, {}, {}, nil, 0
  local function hold(name, when, id, place)
    local line = lines[name] or {}
    local n = #line
    line[n + 1], line[n + 2], lines[name] = place, id, line
    whens[name] = math.min(whens[name] or when, when)
  end

  -- What a job draws from: bucket, limit, points, flat. The record is the text that this daemon writes: inside a value
  -- the quotes would be escaped, and what an argument holds comes after it.
  local function needs(text, task, stop)
    local list, n, own = {}, 0, nil
    local written = string.match(text, '^,"buckets":%[([^%]]*)%]', stop + 1)
    for draw in string.gmatch(written or '', '"([^"]*)"') do
      local bucket, points = draw, 1
      if string.find(draw, '=', 1, true) then
        bucket, points = string.match(draw, '^(.*)=(%d+)$')
        points = tonumber(points)
      end
      if limits[bucket] then
        own = own or {}
        own[bucket] = points
      else
        local limit = limit_of(bucket)
        if limit then
          list[n + 1], list[n + 2], list[n + 3] = bucket, limit, math.min(limit.points or points, limit.cap)
          n = n + 3
        end
      end
    end
    local limit = limits[task]
    if limit then
      local points = limit.points or own and own[task] or 1
      list[n + 1], list[n + 2], list[n + 3] = task, limit, math.min(points, limit.cap)
      n = n + 3
    end
    return list, n, whole and math.min(whole.points or own and own['*'] or 1, whole.cap)
  end

  -- What all of these draw from; how much of that is in use is read at once.
  local function read_ahead(texts)
    local read, asked, seen = {}, {}, {}
    for t, text in ipairs(texts) do
      if text then
        local _, stop, task = string.find(text, '"task":"([^"]*)"')
        local list, n, all = needs(text, task, stop)
        read[t] = { task, list, n, all }
        for i = 1, n, 3 do
          local bucket = list[i]
          if list[i + 1].most and not states[bucket] and not seen[bucket] then
            seen[bucket], asked[#asked + 1] = true, bucket
          end
        end
      end
    end
    if #asked > 0 then
      for i, used in ipairs(redis.call('HMGET', KEYS[11], unpack(asked))) do
        used_of[asked[i]] = tonumber(used or 0)
      end
    end
    return read
  end

  -- Takes the job or holds it. Returns nil when it has to stay where it is, because the whole queue has no room; true
  -- when it was taken.
  local function consider(id, place, text, drawn_from)
    if not text then
      return false
    end
    local task, list, n, all = unpack(drawn_from, 1, 4)
    if paused[task] then
      hold('!' .. task, clock + ANYWAY, id, place)
      return false
    end
    for i = 1, n, 3 do
      local when = blocked(state_of(list[i], list[i + 1]), list[i + 2])
      if when then
        hold(list[i], when, id, place)
        hits = hits + 1
        for o = 1, n, 3 do
          others[#others + 1] = o ~= i and list[o] or nil
        end
        return false
      end
    end
    if all then
      stopped = blocked(state_of('*', whole), all)
      if stopped then
        return nil
      end
    end
    local drawn = nil
    for i = 1, n, 3 do
      local bucket, points = list[i], list[i + 2]
      take(states[bucket], points)
      if list[i + 1].most then
        local draw = points == 1 and bucket or bucket .. '=' .. string.format('%.0f', points)
        drawn = drawn and drawn .. ' ' .. draw or draw
      end
    end
    if all then
      take(states['*'], all)
      if states['*'].counted then
        drawn = (drawn and drawn .. ' ' or '') .. '*=' .. string.format('%.0f', all)
      end
    end
    ids[#ids + 1] = id
    records[#ids], draws[#ids] = text, drawn
    return true
  end

  -- Where only the whole queue is limited, and by the number of jobs, nobody can be held: the first ones are taken.
  local function in_front()
    local state, points = states['*'], whole.points
    local wish = math.min(want, math.floor(room_of(state) / points))
    ids = wish > 0 and redis.call('ZRANGE', KEYS[1], 0, wish - 1) or {}
    if #ids > 0 then
      records = redis.call('HMGET', KEYS[2], unpack(ids))
      redis.call('ZREMRANGEBYRANK', KEYS[1], 0, #ids - 1)
    end
    local draw = state.counted and '*=' .. string.format('%.0f', points) or nil
    for i = 1, #ids do
      if records[i] then
        take(state, points)
        draws[i] = draw
      end
    end
    if wish < want then
      stopped = blocked(state, points)
    end
  end

  local function in_order()
    for round = 1, ROUNDS do
      local wish = want - #ids
      if wish <= 0 or stopped then
        return
      end
      local found = redis.call('ZRANGE', KEYS[1], 0, (round == 1 and wish or math.max(wish, LOOK)) - 1, 'WITHSCORES')
      if #found == 0 then
        return
      end
      local asked = {}
      for i = 1, #found, 2 do
        asked[#asked + 1] = found[i]
      end
      local texts, gone = redis.call('HMGET', KEYS[2], unpack(asked)), 0
      local drawn_from = read_ahead(texts)
      for i, id in ipairs(asked) do
        if #ids >= want or consider(id, found[2 * i], texts[i], drawn_from[i]) == nil then
          break
        end
        gone = i
      end
      if gone > 0 then
        redis.call('ZREMRANGEBYRANK', KEYS[1], 0, gone - 1)
      end
    end
  end

  -- What has come to pending goes to the lines of its tenants. New jobs stand there already (see enqueue and admit).
  local function sort_out()
    local found = redis.call('ZRANGE', KEYS[1], 0, BATCH - 1, 'WITHSCORES')
    if #found == 0 then
      return
    end
    local asked, places, tenants, turn = {}, {}, {}, redis.call('HGET', KEYS[6], 'turn') or '0'
    for i = 1, #found, 2 do
      local n = #asked + 1
      asked[n], places[2 * n - 1], places[2 * n] = found[i], found[i + 1], found[i]
    end
    for n, text in ipairs(redis.call('HMGET', KEYS[2], unpack(asked))) do
      local _, stop = string.find(text or '', '"task":"[^"]*"')
      local written = stop and string.match(text, '^,"buckets":%[([^%]]*)%]', stop + 1)
      local tenant = string.match(written or '', '"(~[^"]*)"') or '~'
      local line = tenants[tenant] or {}
      local l = #line
      line[l + 1], line[l + 2], tenants[tenant] = places[2 * n - 1], asked[n], line
    end
    redis.call('ZADD', KEYS[8], unpack(places))
    for tenant, line in pairs(tenants) do
      redis.call('ZADD', KEYS[8] .. '/' .. tenant, unpack(line))
      redis.call('ZADD', KEYS[10], 'GT', turn, tenant)
      redis.call('ZADD', KEYS[9], 'NX', '+inf', tenant)
    end
    redis.call('ZREMRANGEBYRANK', KEYS[1], 0, #asked - 1)
    word = #asked == BATCH and 'more' or word
  end

  -- Takes up to `count` jobs from the front of a tenant's line. Returns how many were looked at and how many taken.
  local function serve(tenant, count)
    local line = KEYS[8] .. '/' .. tenant
    local found = redis.call('ZRANGE', line, 0, count - 1)
    if #found == 0 then
      return 0, 0
    end
    local places = redis.call('ZMSCORE', KEYS[8], unpack(found))
    local texts, gone, taken, passed = redis.call('HMGET', KEYS[2], unpack(found)), {}, 0, 0
    local drawn_from = read_ahead(texts)
    for i, id in ipairs(found) do
      if places[i] then
        local before = #ids
        if consider(id, places[i], texts[i], drawn_from[i]) == nil then
          break
        end
        -- Whoever is held by something else stays in `held`.
        if #ids > before or not texts[i] then
          gone[#gone + 1] = id
        end
        taken = taken + #ids - before
      end
      passed = i
    end
    if passed > 0 then
      redis.call('ZREMRANGEBYRANK', line, 0, passed - 1)
    end
    if #gone > 0 then
      redis.call('ZREM', KEYS[8], unpack(gone))
    end
    return passed, taken
  end

  -- Start-time fair queueing: whoever has got the least since he came is next; each start moves him back by one, and who
  -- comes anew starts where the line is, so nobody saves up turns and nobody loses one.
  local function in_turn()
    local turn = nil
    for _ = 1, ROUNDS do
      local wish = want - #ids
      if wish <= 0 or stopped then
        break
      end
      local heads = redis.call('ZRANGE', KEYS[10], 0, wish - 1, 'WITHSCORES')
      if #heads == 0 then
        break
      end
      -- Whose turns the next ones are, were all lines long enough: the first of those who have not had one yet, or of
      -- those who have, in both of which nobody overtakes.
      local count, tags, again, next_head, next_again = {}, {}, {}, 1, 1
      for _ = 1, wish do
        local tenant, tag = heads[next_head], tonumber(heads[next_head + 1])
        local other = again[next_again]
        if other and (not tenant or other[2] < tag) then
          tenant, tag, next_again = other[1], other[2], next_again + 1
        else
          next_head = next_head + 2
          tags[tenant] = tag
        end
        count[tenant] = (count[tenant] or 0) + 1
        again[#again + 1] = { tenant, tag + 1 }
      end
      local moved, gone = {}, {}
      for i = 1, #heads, 2 do
        local tenant = heads[i]
        if count[tenant] and not stopped then
          local passed, taken = serve(tenant, count[tenant])
          if passed == 0 and not stopped then
            gone[#gone + 1] = tenant
          elseif taken > 0 then
            local n = #moved
            moved[n + 1], moved[n + 2] = tags[tenant] + taken, tenant
            turn = math.max(turn or 0, tags[tenant] + taken - 1)
          end
        end
      end
      if #moved > 0 then
        redis.call('ZADD', KEYS[10], unpack(moved))
      end
      if #gone > 0 then
        redis.call('ZREM', KEYS[10], unpack(gone))
        redis.call('ZREM', KEYS[9], unpack(gone))
      end
    end
    if turn then
      redis.call('HSET', KEYS[6], 'turn', string.format('%.0f', turn))
    end
  end

  local function write_down()
    local used = {}
    for bucket, state in pairs(states) do
      if state.taken > 0 then
        if state.room and state.counted then
          local n = #used
          used[n + 1], used[n + 2] = bucket, string.format('%.0f', state.used + state.taken)
        end
        for w, seen in ipairs(state.windows) do
          local length, points, since = state.limit.windows[w].length, state.taken, seen.now
          -- Starts that lie close together become one entry, as young as the last of them: it holds their room a little
          -- longer, by a thousandth of the window at most, and a window has no more than about a thousand entries.
          if seen.member and seen.now - seen.since < length / 1000 then
            redis.call('ZREM', seen.key, seen.member)
            points, since = points + seen.points, seen.since
          end
          local total = string.format('%.0f %.0f %.0f', seen.total + state.taken, points, since)
          redis.call('ZADD', seen.key, seen.now, total)
          redis.call('PEXPIRE', seen.key, length + AHEAD)
        end
      end
    end
    if #used > 0 then
      redis.call('HSET', KEYS[11], unpack(used))
    end
    for name, line in pairs(lines) do
      redis.call('ZADD', KEYS[8] .. '/' .. name, unpack(line))
      redis.call('ZADD', KEYS[8], unpack(line))
      redis.call('ZADD', KEYS[9], 'LT', whens[name], name)
    end
    if hits > 0 then
      redis.call('HINCRBY', KEYS[6], 'held', hits)
    end
    -- Who was to fill this room is held by something else now: the next in line may.
    for _, bucket in ipairs(others) do
      if states[bucket] and not blocked(states[bucket], 1)
        and redis.call('ZADD', KEYS[9], 'XX', 'CH', 0, bucket) == 1 then
        word = 'more'
      end
    end
  end

  stopped = whole and blocked(state_of('*', whole), 1)
  if not stopped then
    if fair then
      sort_out()
      in_turn()
    elseif not holds and whole and whole.points then
      in_front()
    else
      in_order()
    end
  end
  write_down()
  if stopped then
    redis.call('ZADD', KEYS[9], 'LT', stopped, '*')
    return 'limited'
  end
  return word
end

if some_paused or ARGV[5] or redis.call('ZCARD', KEYS[9]) > 0 then
  say = choose()
else
  ids = redis.call('ZRANGE', KEYS[1], 0, want - 1)
  if #ids > 0 then
    records = redis.call('HMGET', KEYS[2], unpack(ids))
    redis.call('ZREMRANGEBYRANK', KEYS[1], 0, #ids - 1)
  end
end
if #ids == 0 then
  return { say, '' }
end

local histories = redis.call('HMGET', KEYS[3], unpack(ids))
-- string.format, because Lua writes numbers from 1e14 on in exponent form.
local token = string.format('%.0f', redis.call('HINCRBY', KEYS[6], 'token', 1))
local holder = token .. ' ' .. node .. ' ' .. now
local claims, active = { say, token }, {}
for i = 1, #ids do
  -- A job without a record was deleted while it waited.
  if records[i] then
    local at, mark = #claims, #active
    claims[at + 1], claims[at + 2] = records[i], histories[i] or ''
    active[mark + 1], active[mark + 2] = ids[i], draws[i] and holder .. ' ' .. draws[i] or holder
  end
end
if #active > 0 then
  redis.call('HSET', KEYS[4], unpack(active))
end
return claims
