-- Enqueues the job of one fire of a schedule, once over all nodes, and remembers the fire.
--
-- KEYS  fires, jobs, pending, scheduled, retry, active, large, held, unique,
--       history, completed, dead, cancelled, outbox, counters
-- ARGV  schedule, fire (ms), id, record (JSON), now (ms), its place in line, its arguments if they are too large for the
--       record (JSON, else ''), 'skip' to leave the fire out while the job of an earlier one
--       has not ended (else ''), the set it goes to ('pending' | 'scheduled'); then, if it is unique: its key (see
--       lib/unique), 'replace' or 'refuse', until, expires, for, the longest that newcomers put the start off (ms, 0 for
--       no bound), the end of one that gives way (JSON)
-- Returns an array: 1 enqueued, with the id of the one that gave way, and then its record and history if a foreign
-- producer is owed word of it; 0 this fire or a later one was done before; 2 left out because an earlier job has not
-- ended; 3 left out because its key is held, and the holder (see told in lib/unique).
local schedule, fire, id, now = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[5])
local last = tonumber(redis.call('HGET', KEYS[1], schedule) or 0)
-- A fire from the future was written by a clock that was wrong: it must not silence the schedule until then.
if last >= fire and last <= now + 60000 then
  return { 0 }
end
redis.call('HSET', KEYS[1], schedule, ARGV[2])
-- A schedule's name holds no space, so this field is nobody's name.
local running = schedule .. ' job'
if ARGV[8] == 'skip' then
  local earlier = redis.call('HGET', KEYS[1], running)
  if earlier and (redis.call('HEXISTS', KEYS[6], earlier) == 1 or redis.call('ZSCORE', KEYS[3], earlier)
    or redis.call('ZSCORE', KEYS[4], earlier) or redis.call('ZSCORE', KEYS[5], earlier)
    or redis.call('ZSCORE', KEYS[8], earlier)) then
    return { 2 }
  end
end
local exists = redis.call('HEXISTS', KEYS[2], id) == 1
local record, score, set, answer = ARGV[4], ARGV[6], ARGV[9], { 1 }
if ARGV[10] and not exists then
  local held, replaced, owed, since = unique_keys({
    jobs = KEYS[2], pending = KEYS[3], scheduled = KEYS[4], retry = KEYS[5], active = KEYS[6], held = KEYS[8],
    unique = KEYS[9], history = KEYS[10], completed = KEYS[11], dead = KEYS[12], cancelled = KEYS[13], outbox = KEYS[14],
    counters = KEYS[15],
  }, now).claim({
    id = id, field = ARGV[10], way = ARGV[11], till = ARGV[12], expires = ARGV[13], span = ARGV[14], ending = ARGV[16],
  })
  if held then
    return { 3, unpack(told(held)) }
  end
  record, score = put_off_no_longer(record, set, score, since, tonumber(ARGV[15]))
  answer = { 1, replaced, owed and owed[1], owed and owed[2] }
end
redis.call('HSET', KEYS[1], running, id)
if not exists then
  redis.call('HSET', KEYS[2], id, record)
  redis.call('ZADD', set == 'pending' and KEYS[3] or KEYS[4], score, id)
  if ARGV[7] ~= '' then
    redis.call('HSET', KEYS[7], id, ARGV[7])
  end
end
return answer
