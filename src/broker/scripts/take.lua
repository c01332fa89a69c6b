-- Takes messages from the foreign lists of a queue into its in-flight record, no more than there is room for: what is
-- pending already comes first, and a paused queue takes nothing. From here on a message is in exactly one place of ours
-- until it is admitted.
--
-- KEYS  pending, inflight, counters, leases, pauses, then the lists in the order in which they are served
-- ARGV  node, end of its lease (ms), room, then for each list: the side to take from ('L' | 'R')
-- Returns { how many jobs are pending, then for each message: its field in the in-flight record (`node/number NUL list`)
-- and the element }, flat.
local FIRST, STEP = 6, 500
local node, pending = ARGV[1], redis.call('ZCARD', KEYS[1])
local room = tonumber(ARGV[3]) - pending
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('HDEL', KEYS[2], '')
redis.call('ZADD', KEYS[4], 'GT', ARGV[2], node)
local out = { tostring(pending) }
if redis.call('HEXISTS', KEYS[5], '') == 1 then
  return out
end
for l = FIRST, #KEYS do
  if room <= 0 then
    break
  end
  local pop, list = ARGV[l - FIRST + 4] == 'L' and 'LPOP' or 'RPOP', KEYS[l]
  local elements = redis.call(pop, list, room)
  if elements then
    local count, at = #elements, #out
    local number = redis.call('HINCRBY', KEYS[3], 'message', count) - count
    for first = 1, count, STEP do
      local held, n = {}, 0
      for i = first, math.min(first + STEP - 1, count) do
        -- The list stands in the field, because elements are long: joining them with anything costs.
        local field = node .. '/' .. string.format('%.0f', number + i) .. '\0' .. list
        held[n + 1], held[n + 2], n = field, elements[i], n + 2
        out[at + 1], out[at + 2], at = field, elements[i], at + 2
      end
      redis.call('HSET', KEYS[2], unpack(held))
    end
    room = room - count
  end
end
return out
