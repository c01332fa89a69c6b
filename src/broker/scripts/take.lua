-- Takes messages from the foreign lists of a queue into its in-flight record, no more than there is room to run:
-- what is pending already comes first, and a paused queue takes nothing. From here on a message is in exactly one place
-- of ours until it is admitted.
--
-- KEYS  pending, inflight, counters, leases, pauses, then the lists in the order in which they are served
-- ARGV  node, end of its lease (ms), room, then for each list: the side to take from ('L' | 'R')
-- Returns { field in the in-flight record, list, element } for each message, flat.
local FIRST = 6
local node, room = ARGV[1], tonumber(ARGV[3]) - redis.call('ZCARD', KEYS[1])
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('HDEL', KEYS[2], '')
redis.call('ZADD', KEYS[4], 'GT', ARGV[2], node)
local out = {}
if redis.call('HEXISTS', KEYS[5], '') == 1 then
  return out
end
for l = FIRST, #KEYS do
  if room <= 0 then
    break
  end
  local pop = ARGV[l - FIRST + 4] == 'L' and 'LPOP' or 'RPOP'
  local elements = redis.call(pop, KEYS[l], room)
  if elements then
    local number = redis.call('HINCRBY', KEYS[3], 'message', #elements) - #elements
    for i = 1, #elements do
      local field = node .. '/' .. string.format('%.0f', number + i)
      redis.call('HSET', KEYS[2], field, KEYS[l] .. '\0' .. elements[i])
      local at = #out
      out[at + 1], out[at + 2], out[at + 3] = field, KEYS[l], elements[i]
    end
    room = room - #elements
  end
end
return out
