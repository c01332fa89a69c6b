-- Ends attempts: the only way out of active. A settle whose holder is not the active one is refused.
-- Ended jobs beyond the number to keep are deleted here, so that the sets of a busy queue do not outgrow their bound.
--
-- What the attempt drew from the buckets of limits goes back, and whoever waits in line for that is looked at next.
--
-- KEYS  active, history, jobs, large, pending, retry, completed, dead, cancelled, counters, outbox, cancels, used, lines,
--       words, notes
-- ARGV  how many completed to keep, how many dead (and cancelled) to keep,
--       then for each settle: id, holder (`token node started`, as in active), set ('pending' | 'retry' | 'completed' |
--       'dead' | 'cancelled'), score, history (JSON), outcome's counter ('failed' | 'crashed' | ''), the token if a
--       foreign producer waits for an answer (else ''), what its flow is to be told (JSON, or '')
-- Returns for each settle: 1 applied, 2 was applied before (its answer was lost), 0 refused, 3 not applied because the
-- job would go on and is to be cancelled: settle it again as cancelled.
local WIDTH = 8
local sets = { pending = KEYS[5], retry = KEYS[6], completed = KEYS[7], dead = KEYS[8], cancelled = KEYS[9] }
local ended = { completed = true, dead = true, cancelled = true }
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('HDEL', KEYS[1], '')
local ids = {}
for i = 3, #ARGV, WIDTH do
  ids[#ids + 1] = ARGV[i]
end
local holders = redis.call('HMGET', KEYS[1], unpack(ids))
local cancels, lines = redis.call('EXISTS', KEYS[12], KEYS[14]) > 0, false
if cancels then
  cancels, lines = redis.call('EXISTS', KEYS[12]) == 1, redis.call('EXISTS', KEYS[14]) == 1
end
-- What comes back, by bucket.
local given = {}
local replies, left, histories, scores, counts, outbox, words = {}, {}, {}, {}, {}, {}, {}
for n = 1, #ids do
  local at = 3 + (n - 1) * WIDTH
  local id, holder, set = ids[n], holders[n], ARGV[at + 2]
  local drawn = drawn_by(holder, ARGV[at + 1])
  if drawn then
    if cancels and not ended[set] and redis.call('HEXISTS', KEYS[12], id) == 1 then
      replies[n] = 3
    else
      local l, h = #left, #histories
      left[l + 1], histories[h + 1], histories[h + 2] = id, id, ARGV[at + 4]
      if drawn ~= '' then
        add_draws(drawn, given)
      end
      local list = scores[set]
      if not list then
        list = {}
        scores[set] = list
      end
      local s = #list
      list[s + 1], list[s + 2] = ARGV[at + 3], id
      local counter = ARGV[at + 5]
      if counter ~= '' then
        counts[counter] = (counts[counter] or 0) + 1
      end
      if ARGV[at + 6] ~= '' then
        outbox[#outbox + 1] = id
        outbox[#outbox + 1] = ARGV[at + 6]
      end
      if ARGV[at + 7] ~= '' then
        words[#words + 1] = ARGV[at + 7]
      end
      replies[n] = 1
    end
  elseif not holder and redis.call('HGET', KEYS[2], id) == ARGV[at + 4] then
    replies[n] = 2
  else
    counts.refused = (counts.refused or 0) + 1
    replies[n] = 0
  end
end
if #left > 0 then
  redis.call('HDEL', KEYS[1], unpack(left))
  redis.call('HSET', KEYS[2], unpack(histories))
  if cancels then
    -- Whatever was asked, this attempt is over.
    redis.call('HDEL', KEYS[12], unpack(left))
  end
end
give_back(KEYS[13], lines and KEYS[14], given)
if lines and #left > 0 then
  redis.call('ZADD', KEYS[14], 'XX', 0, '*')
end
for set, list in pairs(scores) do
  redis.call('ZADD', sets[set], unpack(list))
  if ended[set] then
    counts[set] = #list / 2
  end
end
if #outbox > 0 then
  redis.call('HSET', KEYS[11], unpack(outbox))
end
if #words > 0 then
  redis.call('RPUSH', KEYS[15], unpack(words))
end
for name, n in pairs(counts) do
  redis.call('HINCRBY', KEYS[10], name, n)
end
-- A record is needed until its producer has its answer; but debts that nobody pays must not fill Redis.
local DEBTS = 100000
local function paid(list)
  local debts = redis.call('HLEN', KEYS[11])
  if debts == 0 or debts > DEBTS then
    return list
  end
  local owed, rest = redis.call('HMGET', KEYS[11], unpack(list)), {}
  for i, id in ipairs(list) do
    if not owed[i] then
      rest[#rest + 1] = id
    end
  end
  return rest
end
local function trim(set, keep)
  if not scores[set] then
    return
  end
  -- Twice what came in (the list holds a score for each id): a set whose bound was lowered shrinks with every settle.
  local surplus = math.min(redis.call('ZCARD', sets[set]) - keep, #scores[set])
  if surplus > 0 then
    local gone = paid(redis.call('ZRANGE', sets[set], 0, surplus - 1))
    if #gone > 0 then
      redis.call('ZREM', sets[set], unpack(gone))
      for k = 2, 4 do
        redis.call('HDEL', KEYS[k], unpack(gone))
      end
      redis.call('HDEL', KEYS[16], unpack(gone))
    end
  end
end
trim('completed', tonumber(ARGV[1]))
trim('dead', tonumber(ARGV[2]))
trim('cancelled', tonumber(ARGV[2]))
return replies
