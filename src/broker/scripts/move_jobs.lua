-- Changes where jobs that do not run stand, if they stand there still: cancels, retries, promotes and deletes by id. The
-- caller has read the job and decided; what changed meanwhile is answered by 0, and read and decided again.
--
-- KEYS  jobs, history, large, active, outbox, cancels, counters, unique, pending, scheduled, retry, held, completed,
--       dead, cancelled, words, notes, then the sorted sets that the moves name
-- ARGV  now (ms), then for each job: what ('move' | 'delete' | 'mark', to cancel what runs), id, number of the set it stands in among
--       KEYS (0 for mark), the history it has (JSON, or ''), the set it goes to (number, or 0), score, its new history
--       (JSON, or ''), its new record ('' to keep it), its new large arguments ('' for none, '-' to keep them), the note
--       for `cancels`, a counter ('' for none), '1' if a foreign producer is owed an answer,
--       the key that it must hold to go there ('' for none; see lib/unique), until ('-': it gives the key up), expires, for,
--       what its flow is to be told (JSON, or '')
-- Returns for each job an array: 1 done, 0 it stands elsewhere or has another history, 2 another job holds its key, and
-- that one (see told in lib/unique).
local WIDTH = 17
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('HDEL', KEYS[4], '')
local now, keys = tonumber(ARGV[1]), nil

-- The unique keys, for the few who ask.
local function unique()
  keys = keys or unique_keys({
    jobs = KEYS[1], history = KEYS[2], active = KEYS[4], outbox = KEYS[5], counters = KEYS[7], unique = KEYS[8],
    pending = KEYS[9], scheduled = KEYS[10], retry = KEYS[11], held = KEYS[12], completed = KEYS[13], dead = KEYS[14],
    cancelled = KEYS[15],
  }, now)
  return keys
end

local replies = {}
for i = 2, #ARGV, WIDTH do
  local what, id, from, before = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
  local to, score, history, record = tonumber(ARGV[i + 4]), ARGV[i + 5], ARGV[i + 6], ARGV[i + 7]
  local large, note, counter, owed = ARGV[i + 8], ARGV[i + 9], ARGV[i + 10], ARGV[i + 11]
  local field, done = ARGV[i + 12], { 0 }
  local stands = what ~= 'mark' and redis.call('ZSCORE', KEYS[from], id)
    and (redis.call('HGET', KEYS[2], id) or '') == before
  local gives_up = ARGV[i + 13] == '-'
  local held = stands and field ~= '' and not gives_up and unique().in_the_way(field, id)
  if what == 'mark' then
    if redis.call('HEXISTS', KEYS[4], id) == 1 then
      redis.call('HSET', KEYS[6], id, note)
      done = { 1 }
    end
  elseif held then
    done = { 2, unpack(told(held)) }
  elseif stands then
    redis.call('ZREM', KEYS[from], id)
    if what == 'delete' then
      for k = 1, 3 do
        redis.call('HDEL', KEYS[k], id)
      end
      redis.call('HDEL', KEYS[17], id)
    else
      redis.call('ZADD', KEYS[to], score, id)
      if history == '' then
        redis.call('HDEL', KEYS[2], id)
      else
        redis.call('HSET', KEYS[2], id, history)
      end
      if record ~= '' then
        redis.call('HSET', KEYS[1], id, record)
      end
      if large == '' then
        redis.call('HDEL', KEYS[3], id)
      elseif large ~= '-' then
        redis.call('HSET', KEYS[3], id, large)
      end
    end
    if field ~= '' and gives_up then
      unique().release(field, id)
    elseif field ~= '' then
      unique().claim({
        id = id, field = field, till = ARGV[i + 13], expires = ARGV[i + 14], span = ARGV[i + 15], mark = unique().mark(id),
      })
    end
    if counter ~= '' then
      redis.call('HINCRBY', KEYS[7], counter, 1)
    end
    if owed == '1' then
      redis.call('HSET', KEYS[5], id, '0')
    end
    if ARGV[i + 16] ~= '' then
      redis.call('RPUSH', KEYS[16], ARGV[i + 16])
    end
    done = { 1 }
  end
  replies[#replies + 1] = done
end
return replies
