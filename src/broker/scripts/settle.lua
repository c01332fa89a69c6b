-- Ends attempts: the only way out of active. A settle whose token is not the active one is refused.
-- Ended jobs beyond the number to keep are deleted here, so that the sets of a busy queue do not outgrow their bound.
--
-- KEYS  active, history, jobs, pending, retry, completed, dead, cancelled, counters, outbox
-- ARGV  how many completed to keep, how many dead (and cancelled) to keep,
--       then for each settle: id, token, set ('pending' | 'retry' | 'completed' | 'dead' | 'cancelled'), score (ms),
--       history (JSON), outcome's counter ('failed' | 'crashed' | ''), reply ('1' when a foreign producer waits)
-- Returns for each settle: 1 applied, 2 was applied before (its answer was lost), 0 refused.
local WIDTH = 7
local sets = { pending = KEYS[4], retry = KEYS[5], completed = KEYS[6], dead = KEYS[7], cancelled = KEYS[8] }
local ended = { completed = true, dead = true, cancelled = true }
local ids = {}
for i = 3, #ARGV, WIDTH do
  ids[#ids + 1] = ARGV[i]
end
local holders = redis.call('HMGET', KEYS[1], unpack(ids))
local replies, left, histories, scores, counts, outbox = {}, {}, {}, {}, {}, {}
local function count(name)
  counts[name] = (counts[name] or 0) + 1
end
for n = 1, #ids do
  local at = 3 + (n - 1) * WIDTH
  local id, token, set, score, history = ids[n], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local holder = holders[n]
  if holder and string.sub(holder, 1, #token + 1) == token .. ' ' then
    left[#left + 1] = id
    histories[#histories + 1] = id
    histories[#histories + 1] = history
    scores[set] = scores[set] or {}
    local list = scores[set]
    list[#list + 1] = score
    list[#list + 1] = id
    if ended[set] then
      count(set)
    end
    if ARGV[at + 5] ~= '' then
      count(ARGV[at + 5])
    end
    if ARGV[at + 6] == '1' then
      outbox[#outbox + 1] = id
      outbox[#outbox + 1] = token
    end
    replies[n] = 1
  elseif not holder and redis.call('HGET', KEYS[2], id) == history then
    replies[n] = 2
  else
    count('refused')
    replies[n] = 0
  end
end
if #left > 0 then
  redis.call('HDEL', KEYS[1], unpack(left))
  redis.call('HSET', KEYS[2], unpack(histories))
end
for set, list in pairs(scores) do
  redis.call('ZADD', sets[set], unpack(list))
end
if #outbox > 0 then
  redis.call('HSET', KEYS[10], unpack(outbox))
end
for name, n in pairs(counts) do
  redis.call('HINCRBY', KEYS[9], name, n)
end
local function trim(set, keep)
  if not scores[set] then
    return
  end
  -- Twice what came in (the list holds a score for each id): a set whose bound was lowered shrinks with every settle.
  local surplus = math.min(redis.call('ZCARD', sets[set]) - keep, #scores[set])
  if surplus > 0 then
    local old = redis.call('ZPOPMIN', sets[set], surplus)
    local gone = {}
    for i = 1, #old, 2 do
      gone[#gone + 1] = old[i]
    end
    redis.call('HDEL', KEYS[3], unpack(gone))
    redis.call('HDEL', KEYS[2], unpack(gone))
  end
end
trim('completed', tonumber(ARGV[1]))
trim('dead', tonumber(ARGV[2]))
trim('cancelled', tonumber(ARGV[2]))
return replies
