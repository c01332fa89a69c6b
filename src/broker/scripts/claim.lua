-- Takes jobs for one attempt each: from pending to active under a fresh fencing token, and renews the node's lease.
-- All claims of one call share the token: a claim is told from every other by its job and its token together.
--
-- Jobs that may not start now are held, out of the way of the others: see lib/lines, lib/limits and lib/turns.
--
-- KEYS  pending, jobs, history, active, leases, counters, pauses, held (and, beside it, the lines held/NAME), lines,
--       turns, used, starts (and, beside it, starts/…: see lib/windows)
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
  -- How far a claim looks past jobs that it holds.
  local LOOK, ROUNDS = 200, 10
  local clock, fair, counted = tonumber(now), ARGV[5] == '1', nil
  local keys = {
    pending = KEYS[1], jobs = KEYS[2], counters = KEYS[6], held = KEYS[8], lines = KEYS[9], turns = KEYS[10],
  }
  local function starts()
    counted = counted or windows(KEYS[12], clock)
    return counted
  end
  local function running()
    return redis.call('HLEN', KEYS[4])
  end
  local limits, lines = limits_of(KEYS[11], 6, clock, running, starts), lines_of(keys, clock)
  local whole, room, firsts, list, stopped = limits.whole, limits.room, limits.firsts, limits.draws, nil
  lines.look(paused, fair, limits)

  local function take(id, text, t)
    local noted = nil
    for i = firsts[t], firsts[t + 1] - 1, 2 do
      limits.take(list[i], list[i + 1])
      local draw = limits.drawn(list[i], list[i + 1])
      noted = noted and draw and noted .. ' ' .. draw or noted or draw
    end
    local n = #ids + 1
    ids[n], records[n], draws[n] = id, text, noted
  end

  -- Takes the job at t or holds it. Returns nil when it has to stay where it is, because the whole queue has no room; true
  -- when it was taken. Its place in line is asked for later, where it is not given.
  local function consider(id, place, text, t)
    if not text then
      return false
    end
    if some_paused and paused[limits.tasks[t]] then
      lines.hold_paused(limits.tasks[t], id, place)
      return false
    end
    for i = firsts[t], firsts[t + 1] - 1, 2 do
      local bucket, points = list[i], list[i + 1]
      local when = room[bucket] < points and limits.blocked(bucket, points)
      if when and limits.names[bucket] == '*' then
        stopped = when
        return nil
      elseif when then
        lines.hold_limited(limits, t, i, when, id, place)
        return false
      end
    end
    take(id, text, t)
    return true
  end

  -- Where only the whole queue is limited, and by the number of jobs, nobody can be held: the first ones are taken.
  local function in_front()
    local bucket, points = limits.know('*'), whole.points
    -- So that the room is known exactly.
    limits.blocked(bucket, want * points)
    local wish = math.min(want, math.floor(room[bucket] / points))
    ids = wish > 0 and redis.call('ZRANGE', KEYS[1], 0, wish - 1) or {}
    if #ids > 0 then
      records = redis.call('HMGET', KEYS[2], unpack(ids))
      redis.call('ZREMRANGEBYRANK', KEYS[1], 0, #ids - 1)
    end
    local draw = limits.drawn(bucket, points)
    for i = 1, #ids do
      if records[i] then
        limits.take(bucket, points)
        draws[i] = draw
      end
    end
    if wish < want then
      stopped = limits.blocked(bucket, points)
    end
  end

  local function in_order()
    for round = 1, ROUNDS do
      local wish = want - #ids
      if wish <= 0 or stopped then
        return
      end
      local found = redis.call('ZRANGE', KEYS[1], 0, (round == 1 and wish or math.max(wish, LOOK)) - 1)
      if #found == 0 then
        return
      end
      local texts, gone = redis.call('HMGET', KEYS[2], unpack(found)), 0
      limits.take_apart(texts, #found)
      for i = 1, #found do
        if #ids >= want or consider(found[i], nil, texts[i], i) == nil then
          break
        end
        gone = i
      end
      lines.place(KEYS[1])
      if gone > 0 then
        redis.call('ZREMRANGEBYRANK', KEYS[1], 0, gone - 1)
      end
    end
  end

  local function in_turn()
    local turns = turns_of(keys)
    if turns.sort_out() then
      lines.say = 'more'
    end
    local function consider_all(asked, places, texts)
      local taken = {}
      limits.take_apart(texts, #asked)
      for n, id in ipairs(asked) do
        local took = places[n] and consider(id, places[n], texts[n], n)
        if took == nil and places[n] then
          return n - 1, taken
        end
        taken[n] = took
      end
      return #asked, taken
    end
    for _ = 1, ROUNDS do
      if #ids >= want or stopped or not turns.round(want - #ids, consider_all) then
        break
      end
    end
  end

  stopped = whole and limits.blocked(limits.know('*'), 1)
  if not stopped then
    if fair then
      in_turn()
    elseif not some_paused and not limits.may_hold and whole and whole.points then
      in_front()
    else
      in_order()
    end
  end
  limits.write()
  lines.write(limits)
  if stopped then
    redis.call('ZADD', KEYS[9], 'LT', stopped, '*')
    return 'limited'
  end
  return lines.say
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
