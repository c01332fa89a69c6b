-- Turns messages in flight into jobs. A message that is not in the in-flight record any more was admitted before and
-- is left alone. A producer may send an id again: while the first job lives it stays the only one, and once that has
-- ended the new message starts it over.
--
-- KEYS  inflight, jobs, history, pending, scheduled, retry, active, completed, dead, cancelled, outbox, counters, large,
--       parked (and, beside it, its sorted sets parked/TASK)
-- ARGV  for each message: field, id, record (JSON), set ('pending' | 'scheduled' | 'dead' | 'drop'), score,
--       history (JSON, or '' for none), its arguments if they are too large for the record (JSON, else ''), and how many of the next arguments belong to it: none, or the key of the
--       producer's own hash, a field and its value that say that the job was withdrawn, and fields and values to set
--       there if it exists, so that its clients see the job as taken
-- Returns for each message: 1 admitted, 2 its job lives already, 0 was not in flight, 3 was withdrawn.
local sets = { pending = KEYS[4], scheduled = KEYS[5], dead = KEYS[9] }
local out = {}
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('HDEL', KEYS[1], '')

local function is_parked(id)
  for _, task in ipairs(redis.call('SMEMBERS', KEYS[14])) do
    if redis.call('ZSCORE', KEYS[14] .. '/' .. task, id) then
      return true
    end
  end
  return false
end

local function lives(id)
  return redis.call('HEXISTS', KEYS[2], id) == 1
    and (redis.call('HEXISTS', KEYS[7], id) == 1 or redis.call('ZSCORE', KEYS[4], id)
      or redis.call('ZSCORE', KEYS[5], id) or redis.call('ZSCORE', KEYS[6], id) or is_parked(id))
end

local function start_over(id, record, set, score, history, large)
  for s = 8, 10 do
    redis.call('ZREM', KEYS[s], id)
  end
  redis.call('HSET', KEYS[2], id, record)
  redis.call('ZADD', sets[set], score, id)
  if history == '' then
    redis.call('HDEL', KEYS[3], id)
  else
    redis.call('HSET', KEYS[3], id, history)
  end
  if large == '' then
    redis.call('HDEL', KEYS[13], id)
  else
    redis.call('HSET', KEYS[13], id, large)
  end
  if set == 'dead' then
    redis.call('HSET', KEYS[11], id, '0')
    redis.call('HINCRBY', KEYS[12], 'dead', 1)
  end
end

local i = 1
while i <= #ARGV do
  local field, id, record, set, score, history = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
  local large, marks = ARGV[i + 6], tonumber(ARGV[i + 7])
  if redis.call('HDEL', KEYS[1], field) == 0 then
    out[#out + 1] = 0
  elseif set == 'drop' then
    out[#out + 1] = 1
  elseif lives(id) then
    out[#out + 1] = 2
  elseif marks > 0 and redis.call('HGET', ARGV[i + 8], ARGV[i + 9]) == ARGV[i + 10] then
    out[#out + 1] = 3
  else
    start_over(id, record, set, score, history, large)
    if marks > 0 and redis.call('EXISTS', ARGV[i + 8]) == 1 then
      redis.call('HSET', ARGV[i + 8], unpack(ARGV, i + 11, i + 7 + marks))
      -- It may have been given a time to wait; while it runs it must not vanish.
      redis.call('PERSIST', ARGV[i + 8])
    end
    out[#out + 1] = 1
  end
  i = i + 8 + marks
end
return out
