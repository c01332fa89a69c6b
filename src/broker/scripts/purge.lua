-- Takes everything that waits out of a queue, at once and whole, and keeps it for a while to be put back.
--
-- KEYS  trash, the purge's own hash (key of the trash → what it was: the end from which a list is served, 'L' | 'R', or
--       '-' for a sorted set, then the key to which it goes back), then pairs: a key that holds what waits, and the key
--       of the trash that takes it
-- ARGV  purge, when it is deleted for good (ms), then for each pair what the hash says of it
-- Returns how many jobs or messages each of the pairs held.
local counts, any = {}, false
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('ZREM', KEYS[1], '')
for i = 3, #KEYS, 2 do
  local note = ARGV[3 + (i - 3) / 2]
  local count = redis.call(string.sub(note, 1, 1) == '-' and 'ZCARD' or 'LLEN', KEYS[i])
  if count > 0 then
    redis.call('RENAME', KEYS[i], KEYS[i + 1])
    redis.call('HSET', KEYS[2], KEYS[i + 1], note)
    any = true
  end
  counts[#counts + 1] = count
end
if any then
  redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
end
return counts
