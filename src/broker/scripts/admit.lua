-- Turns messages in flight into jobs. A message that is not in the in-flight record any more was admitted before and
-- is left alone. A producer may send an id again: while the first job lives it stays the only one, and once that has
-- ended the new message starts it over.
--
-- KEYS  inflight, jobs, history, pending, scheduled, retry, active, completed, dead, cancelled, outbox, counters, large,
--       held (and, beside it, the lines held/NAME), lines, turns, unique
-- ARGV  the field and the value in a producer's own hash that say that the job was withdrawn, how many of the next
--       arguments are fields and values to set there, so that its clients see the job as taken, and those; how many
--       messages (at most 1000), and for each: its field in the in-flight record, id, record (JSON), set ('pending' |
--       'scheduled' | 'dead' | 'drop'), score, history (JSON, or '' for none), its arguments if they are too large for the
--       record (JSON, else ''), the key of its producer's own hash (or '' for none; it is left alone if it does not exist),
--       the line of its tenant if tenants take turns (else ''); then, if any of them is unique, now (ms), and for each that
--       is: the number of its message, its key (see lib/unique), 'replace' or 'refuse', until, expires, for, the longest
--       that newcomers put the start off (ms, 0 for no bound), the end of one that gives way (JSON), and its own history if
--       its key is held by another (JSON, with {holder} for that one's id)
-- Returns for each message: 1 admitted, 2 its job lives already, 0 was not in flight, 3 was withdrawn; an array if it is
-- unique: 1, the id of the one that gave way, and then its record and history if a foreign producer is owed word of it; or
-- 4 and the holder (see told in lib/unique), when its key was held: then it is cancelled, and its producer owed an answer.
local sets = { pending = KEYS[4], scheduled = KEYS[5], dead = KEYS[9], cancelled = KEYS[10], held = KEYS[14] }
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('HDEL', KEYS[1], '')

local WIDTH, UNIQUE, withdrawn, gone = 9, 9, ARGV[1], ARGV[2]
local first = 5 + tonumber(ARGV[3])
local mark = { '', unpack(ARGV, 4, first - 2) }
local last = first - 1 + WIDTH * tonumber(ARGV[first - 1])
local fields, ids = {}, {}
for at = first, last, WIDTH do
  local n = #fields + 1
  fields[n], ids[n] = ARGV[at], ARGV[at + 1]
end
local known = redis.call('HMGET', KEYS[2], unpack(ids))
-- Not HMGET: the elements are long, and what a script reads costs by the byte. There are never many of them.
local in_flight = {}
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  in_flight[field] = true
end

-- Of a job that has a record.
local function lives(id)
  return redis.call('HEXISTS', KEYS[7], id) == 1 or redis.call('ZSCORE', KEYS[4], id)
    or redis.call('ZSCORE', KEYS[5], id) or redis.call('ZSCORE', KEYS[6], id) or redis.call('ZSCORE', KEYS[14], id)
end

-- What the messages so far have come to; it is written for all of them at once.
local fresh, again, records, places, histories, large, tenants = {}, {}, {}, {}, {}, {}, {}

local function start_over(id, at, is_known)
  local set, r = ARGV[at + 3], #records
  fresh[id] = true
  if is_known then
    again[#again + 1] = id
  end
  records[r + 1], records[r + 2] = id, ARGV[at + 2]
  if set == 'pending' and ARGV[at + 8] ~= '' then
    set = 'held'
    local line = tenants[ARGV[at + 8]] or {}
    local n = #line
    line[n + 1], line[n + 2], tenants[ARGV[at + 8]] = ARGV[at + 4], id, line
  end
  local list = places[set] or {}
  local p = #list
  list[p + 1], list[p + 2], places[set] = ARGV[at + 4], id, list
  if ARGV[at + 5] ~= '' then
    local h = #histories
    histories[h + 1], histories[h + 2] = id, ARGV[at + 5]
  end
  if ARGV[at + 6] ~= '' then
    local l = #large
    large[l + 1], large[l + 2] = id, ARGV[at + 6]
  end
end

local function call(verb, key, list)
  if #list > 0 then
    redis.call(verb, key, unpack(list))
  end
end

local function write()
  -- An id without a record has nothing else either: whatever deletes a record deletes the rest of the job with it.
  for s = 8, 10 do
    call('ZREM', KEYS[s], again)
  end
  call('HDEL', KEYS[3], again)
  call('HDEL', KEYS[13], again)
  call('HSET', KEYS[2], records)
  call('HSET', KEYS[3], histories)
  call('HSET', KEYS[13], large)
  for set, list in pairs(places) do
    redis.call('ZADD', sets[set], unpack(list))
  end
  for _, set in ipairs({ 'dead', 'cancelled' }) do
    local owed = {}
    for n = 2, #(places[set] or {}), 2 do
      owed[n - 1], owed[n] = places[set][n], '0'
    end
    if #owed > 0 then
      call('HSET', KEYS[11], owed)
      redis.call('HINCRBY', KEYS[12], set, #owed / 2)
    end
  end
  -- Whoever has no turn yet starts where the line is.
  local turn = next(tenants) and (redis.call('HGET', KEYS[12], 'turn') or '0')
  for tenant, line in pairs(tenants) do
    redis.call('ZADD', KEYS[14] .. '/' .. tenant, unpack(line))
    redis.call('ZADD', KEYS[16], 'GT', turn, tenant)
    redis.call('ZADD', KEYS[15], 'NX', '+inf', tenant)
  end
  again, records, places, histories, large, tenants = {}, {}, {}, {}, {}, {}
end

-- Where the arguments of each unique message begin, by its number.
local uniques, keys = {}, nil
if last < #ARGV then
  keys = unique_keys({
    jobs = KEYS[2], history = KEYS[3], pending = KEYS[4], scheduled = KEYS[5], retry = KEYS[6], active = KEYS[7],
    completed = KEYS[8], dead = KEYS[9], cancelled = KEYS[10], outbox = KEYS[11], counters = KEYS[12], held = KEYS[14],
    unique = KEYS[17],
  }, tonumber(ARGV[last + 1]))
  for at = last + 2, #ARGV, UNIQUE do
    uniques[tonumber(ARGV[at])] = at
  end
end

-- Takes the key of the message at `at`; by what comes of that its arguments are changed. Returns what is answered.
local function take_key(id, at, from)
  -- Whatever stands in its way must be where the messages before have put it.
  write()
  local held, replaced, owed, since = keys.claim({
    id = id, field = ARGV[from + 1], way = ARGV[from + 2], till = ARGV[from + 3], expires = ARGV[from + 4],
    span = ARGV[from + 5], ending = ARGV[from + 7],
  })
  if held then
    local quoted = string.sub(cjson.encode(held.id), 2, -2)
    local before, behind = string.match(ARGV[from + 8], '^(.-){holder}(.*)$')
    ARGV[at + 3], ARGV[at + 4], ARGV[at + 5] = 'cancelled', ARGV[last + 1], before .. quoted .. behind
    return { 4, unpack(told(held)) }
  end
  ARGV[at + 2], ARGV[at + 4] = put_off_no_longer(ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], since, tonumber(ARGV[from + 6]))
  return { 1, replaced, owed and owed[1], owed and owed[2] }
end

local out = {}
for n = 1, #fields do
  local id, at = ids[n], first + (n - 1) * WIDTH
  if fresh[id] then
    -- The same id twice in one call: the second is judged by what the first has become.
    write()
    known[n] = true
  end
  if not in_flight[fields[n]] then
    out[n] = 0
  elseif ARGV[at + 3] == 'drop' then
    out[n] = 1
  elseif known[n] and lives(id) then
    out[n] = 2
  else
    local hash = ARGV[at + 7]
    local status = hash ~= '' and redis.call('HGET', hash, withdrawn)
    if status == gone then
      out[n] = 3
    else
      out[n] = uniques[n] and take_key(id, at, uniques[n]) or 1
      start_over(id, at, known[n])
      if ARGV[at + 3] ~= 'cancelled' and hash ~= '' and (status or redis.call('EXISTS', hash) == 1) then
        mark[1] = hash
        redis.call('HSET', unpack(mark))
        -- It may have been given a time to wait; while it runs it must not vanish.
        redis.call('PERSIST', hash)
      end
      if uniques[n] then
        write()
      end
    end
  end
end
write()
redis.call('HDEL', KEYS[1], unpack(fields))
return out
