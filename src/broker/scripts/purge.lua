-- Takes everything that waits out of a queue, at once and whole, and keeps it for a while to be put back.
--
-- KEYS  trash, the purge's own hash (key of the trash → what it was: the end from which a list is served, 'L' | 'R', or
--       '-' for a sorted set, then the key to which it goes back), held (and, beside it, the lines held/NAME), lines,
--       turns, then pairs: a key that holds what waits, and the key of the trash that takes it
-- ARGV  purge, when it is deleted for good (ms), then for each pair what the hash says of it
-- Returns how many jobs or messages each of the pairs held.
local FIRST = 6
local moves = {}
for i = FIRST, #KEYS, 2 do
  moves[#moves + 1] = { KEYS[i], KEYS[i + 1], ARGV[3 + (i - FIRST) / 2] }
end
-- All are counted before the first is moved: a foreign key that is no list ends the purge here, and changes nothing.
local counts, any = {}, false
for m, move in ipairs(moves) do
  local count = redis.call(string.sub(move[3], 1, 1) == '-' and 'ZCARD' or 'LLEN', move[1])
  move.count, counts[m], any = count, count, any or count > 0
end
if not any then
  return counts
end
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
for _, name in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
  redis.call('UNLINK', KEYS[3] .. '/' .. name)
end
redis.call('DEL', KEYS[4], KEYS[5])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
for _, move in ipairs(moves) do
  if move.count > 0 then
    redis.call('RENAME', move[1], move[2])
    redis.call('HSET', KEYS[2], move[2], move[3])
  end
end
return counts
