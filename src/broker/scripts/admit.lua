-- Turns messages in flight into jobs. A message that is not in the in-flight record any more was admitted before and
-- is left alone. A producer may send an id again: while the first job lives it stays the only one, and once that has
-- ended the new message starts it over.
--
-- KEYS  inflight, jobs, history, pending, scheduled, retry, active, completed, dead, cancelled, outbox, counters, large,
--       parked (and, beside it, its sorted sets parked/TASK)
-- ARGV  the field and the value in a producer's own hash that say that the job was withdrawn; then for each message (at
--       most 1000): its field in the in-flight record, id, record (JSON), set ('pending' | 'scheduled' |
--       'dead' | 'drop'), score, history (JSON, or '' for none), its arguments if they are too large for the record
--       (JSON, else ''), the key of its producer's own hash (or '' for none; it is left alone if it does not exist)
-- Returns for each message: 1 admitted, 2 its job lives already, 0 was not in flight, 3 was withdrawn.
local sets = { pending = KEYS[4], scheduled = KEYS[5], dead = KEYS[9] }
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('HDEL', KEYS[1], '')

local WIDTH, withdrawn, gone = 8, ARGV[1], ARGV[2]
local first = 3
local fields, ids = {}, {}
for at = first, #ARGV, WIDTH do
  local n = #fields + 1
  fields[n], ids[n] = ARGV[at], ARGV[at + 1]
end
local known = redis.call('HMGET', KEYS[2], unpack(ids))
-- Not HMGET: the elements are long, and what a script reads costs by the byte. There are never many of them.
local in_flight = {}
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  in_flight[field] = true
end

local function is_parked(id)
  for _, task in ipairs(redis.call('SMEMBERS', KEYS[14])) do
    if redis.call('ZSCORE', KEYS[14] .. '/' .. task, id) then
      return true
    end
  end
  return false
end

-- Of a job that has a record.
local function lives(id)
  return redis.call('HEXISTS', KEYS[7], id) == 1 or redis.call('ZSCORE', KEYS[4], id)
    or redis.call('ZSCORE', KEYS[5], id) or redis.call('ZSCORE', KEYS[6], id) or is_parked(id)
end

-- What the messages so far have come to; it is written for all of them at once.
local fresh, again, records, places, told, large = {}, {}, {}, {}, {}, {}

local function start_over(id, at, is_known)
  local set, r = ARGV[at + 3], #records
  fresh[id] = true
  if is_known then
    again[#again + 1] = id
  end
  records[r + 1], records[r + 2] = id, ARGV[at + 2]
  local list = places[set] or {}
  local p = #list
  list[p + 1], list[p + 2], places[set] = ARGV[at + 4], id, list
  if ARGV[at + 5] ~= '' then
    local t = #told
    told[t + 1], told[t + 2] = id, ARGV[at + 5]
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
  call('HSET', KEYS[3], told)
  call('HSET', KEYS[13], large)
  for set, list in pairs(places) do
    redis.call('ZADD', sets[set], unpack(list))
  end
  if places.dead then
    local owed = {}
    for n = 2, #places.dead, 2 do
      owed[n - 1], owed[n] = places.dead[n], '0'
    end
    call('HSET', KEYS[11], owed)
    redis.call('HINCRBY', KEYS[12], 'dead', #owed / 2)
  end
  fresh, again, records, places, told, large = {}, {}, {}, {}, {}, {}
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
      start_over(id, at, known[n])
      if hash ~= '' then
        -- It may have been given a time to wait; while it is ours it must not vanish.
        redis.call('PERSIST', hash)
      end
      out[n] = 1
    end
  end
end
write()
redis.call('HDEL', KEYS[1], unpack(fields))
return out
