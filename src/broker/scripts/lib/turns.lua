-- Stands before claim: tenants take turns. Each has a line; `turns` says who is next.
--
-- Start-time fair queueing: whoever has got the least since he came is next; each start moves him back by one, and who comes
-- anew starts where the line is, so nobody saves up turns and nobody loses one.
--
-- KEYS  none
-- ARGV  none: `keys` are those of claim, by name
-- Returns nothing: `turns_of(keys)` gives the functions sort_out and round.
local function turns_of(keys)
  local BATCH = 1000
  local turn, turned = nil, false

  local function read_turn()
    turn = turn or tonumber(redis.call('HGET', keys.counters, 'turn') or 0)
    return turn
  end

  -- What has come to pending goes to the lines of its tenants: retries, for one. New jobs stand there already (see enqueue
  -- and admit). Says whether there may be more.
  local function sort_out()
    local found = redis.call('ZRANGE', keys.pending, 0, BATCH - 1, 'WITHSCORES')
    if #found == 0 then
      return false
    end
    local asked, places, tenants, start = {}, {}, {}, string.format('%.0f', read_turn())
    for i = 1, #found, 2 do
      local n = #asked + 1
      asked[n], places[2 * n - 1], places[2 * n] = found[i], found[i + 1], found[i]
    end
    for n, text in ipairs(redis.call('HMGET', keys.jobs, unpack(asked))) do
      local _, stop = string.find(text or '', '"task":"[^"]*"')
      local written = stop and string.match(text, '^,"buckets":%[([^%]]*)%]', stop + 1)
      local tenant = string.match(written or '', '"(~[^"]*)"') or '~'
      local line = tenants[tenant] or {}
      local l = #line
      line[l + 1], line[l + 2], tenants[tenant] = places[2 * n - 1], asked[n], line
    end
    redis.call('ZADD', keys.held, unpack(places))
    for tenant, line in pairs(tenants) do
      redis.call('ZADD', keys.held .. '/' .. tenant, unpack(line))
      redis.call('ZADD', keys.turns, 'GT', start, tenant)
      redis.call('ZADD', keys.lines, 'NX', '+inf', tenant)
    end
    redis.call('ZREMRANGEBYRANK', keys.pending, 0, #asked - 1)
    return #asked == BATCH
  end

  -- Whose turns the next ones are, were all lines long enough: the first of those who have not had one yet, or of those who
  -- have, in both of which nobody overtakes. `heads` has tenants and their turns; returns how many each has.
  local function share(heads, wish)
    local count, again, next_head, next_again = {}, {}, 1, 1
    for _ = 1, wish do
      local tenant, tag = heads[next_head], tonumber(heads[next_head + 1])
      local other = again[next_again]
      if other and (not tenant or again[next_again + 1] < tag) then
        tenant, tag, next_again = other, again[next_again + 1], next_again + 2
      else
        next_head = next_head + 2
      end
      count[tenant] = (count[tenant] or 0) + 1
      local n = #again
      again[n + 1], again[n + 2] = tenant, tag + 1
    end
    return count
  end

  -- One round of turns. `consider` is called with the ids, places and records of all whose turn it is, and says how many of
  -- them it has come to, and for each of these whether it was taken. Returns whether anybody was there.
  local function round(wish, consider)
    local heads = redis.call('ZRANGE', keys.turns, 0, wish - 1, 'WITHSCORES')
    if #heads == 0 then
      return false
    end
    local count, ids, scores, owners, gone = share(heads, wish), {}, {}, {}, {}
    for i = 1, #heads, 2 do
      local tenant = heads[i]
      if count[tenant] then
        local found = redis.call('ZPOPMIN', keys.held .. '/' .. tenant, count[tenant])
        if #found == 0 then
          gone[#gone + 1] = tenant
        end
        for f = 1, #found, 2 do
          local n = #ids + 1
          ids[n], scores[n], owners[n] = found[f], found[f + 1], i
        end
      end
    end
    if #gone > 0 then
      redis.call('ZREM', keys.turns, unpack(gone))
      redis.call('ZREM', keys.lines, unpack(gone))
    end
    if #ids == 0 then
      return true
    end
    local places = redis.call('ZMSCORE', keys.held, unpack(ids))
    local texts = redis.call('HMGET', keys.jobs, unpack(ids))
    local come_to, was_taken = consider(ids, places, texts)
    local out, got, moved = {}, {}, {}
    for n = 1, come_to do
      if was_taken[n] then
        got[owners[n]] = (got[owners[n]] or 0) + 1
      end
      -- Whoever is held by something else stays in `held`.
      if places[n] and (was_taken[n] or not texts[n]) then
        out[#out + 1] = ids[n]
      end
    end
    for n = come_to + 1, #ids do
      redis.call('ZADD', keys.held .. '/' .. heads[owners[n]], scores[n], ids[n])
    end
    if #out > 0 then
      redis.call('ZREM', keys.held, unpack(out))
    end
    for i, taken in pairs(got) do
      local n, tag = #moved, tonumber(heads[i + 1]) + taken
      moved[n + 1], moved[n + 2] = string.format('%d', tag), heads[i]
      if tag - 1 > read_turn() then
        turn, turned = tag - 1, true
      end
    end
    if #moved > 0 then
      redis.call('ZADD', keys.turns, unpack(moved))
    end
    if turned then
      redis.call('HSET', keys.counters, 'turn', string.format('%d', turn))
    end
    return true
  end

  return { sort_out = sort_out, round = round }
end
