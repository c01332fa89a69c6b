-- Adds jobs that are unique, one after another. A job whose id exists already is left as it is; one whose key is held is
-- not added, unless the holder waits and the job's rule lets it take the holder's place: that one is then cancelled.
--
-- KEYS  unique, jobs, history, large, pending, scheduled, retry, held, active, completed, dead, cancelled, outbox, counters
-- ARGV  now (ms), then for each job: id, record (JSON), set ('pending' | 'scheduled'), score, its arguments if they are
--       too large for the record (JSON, else ''), its key (see lib/unique), 'replace' or 'refuse', until, expires, for,
--       the longest that newcomers put the start off (ms, 0 for no bound), the end of one that gives way (JSON)
-- Returns for each job an array: 1 and when it is due (ms, 0 for at once), when it was added; with the id of the one that
-- gave way, and then its record and history if a foreign producer is owed word of it; or 0: its id was there; or 2 and the
-- holder (see told in lib/unique).
local WIDTH, now = 12, tonumber(ARGV[1])
local keys = unique_keys({
  unique = KEYS[1], jobs = KEYS[2], history = KEYS[3], pending = KEYS[5], scheduled = KEYS[6], retry = KEYS[7],
  held = KEYS[8], active = KEYS[9], completed = KEYS[10], dead = KEYS[11], cancelled = KEYS[12], outbox = KEYS[13],
  counters = KEYS[14],
}, now)

local function add(at)
  local id, record, set, score = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  if redis.call('HEXISTS', KEYS[2], id) == 1 then
    return { 0 }
  end
  local held, replaced, owed, first = keys.claim({
    id = id, field = ARGV[at + 5], way = ARGV[at + 6], till = ARGV[at + 7], expires = ARGV[at + 8], span = ARGV[at + 9],
    ending = ARGV[at + 11],
  })
  if held then
    return { 2, unpack(told(held)) }
  end
  record, score = put_off_no_longer(record, set, score, first, tonumber(ARGV[at + 10]))
  redis.call('HSET', KEYS[2], id, record)
  redis.call('ZADD', set == 'pending' and KEYS[5] or KEYS[6], score, id)
  if ARGV[at + 4] ~= '' then
    redis.call('HSET', KEYS[4], id, ARGV[at + 4])
  end
  local due = set == 'pending' and '0' or string.match(score, '^%d+')
  return { 1, due, replaced, owed and owed[1], owed and owed[2] }
end

local replies = {}
for at = 2, #ARGV, WIDTH do
  replies[#replies + 1] = add(at)
end
return replies
