-- Takes messages from the foreign lists of a queue into its in-flight record, no more than there is room for: what is
-- pending already comes first, and a paused queue takes nothing. From here on a message is in exactly one place of ours
-- until it is admitted.
--
-- KEYS  pending, inflight, counters, leases, pauses, held, then the lists in the order in which they are served
-- ARGV  node, end of its lease (ms), room, how many messages at most (1000), how many jobs may wait in all, where some are
--       held (else ''), then for each list: the side to take from ('L' | 'R')
-- Returns { how much of the room is taken, or 'paused', then for each message: its field in the in-flight record
-- (`node/number NUL list`) and the element }, flat.
local FIRST_KEY, FIRST_SIDE = 7, 6
local node, pending = ARGV[1], redis.call('ZCARD', KEYS[1])
local left = tonumber(ARGV[3]) - pending
if ARGV[5] ~= '' then
  left = math.min(left, tonumber(ARGV[5]) - pending - redis.call('ZCARD', KEYS[6]))
end
local room = math.min(left, tonumber(ARGV[4]))
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('HDEL', KEYS[2], '')
redis.call('ZADD', KEYS[4], 'GT', ARGV[2], node)
if redis.call('HEXISTS', KEYS[5], '') == 1 then
  return { 'paused' }
end
local out = { string.format('%.0f', math.max(tonumber(ARGV[3]) - left, 0)) }
for l = 0, #KEYS - FIRST_KEY do
  if room <= 0 then
    break
  end
  local list, pop = KEYS[FIRST_KEY + l], ARGV[FIRST_SIDE + l] == 'L' and 'LPOP' or 'RPOP'
  local elements = redis.call(pop, list, room)
  if elements then
    local count, held = #elements, {}
    local number = redis.call('HINCRBY', KEYS[3], 'message', count) - count
    for i = 1, count do
      -- The list stands in the field, because elements are long: joining them with anything costs.
      local field = node .. '/' .. string.format('%.0f', number + i) .. '\0' .. list
      held[2 * i - 1], held[2 * i] = field, elements[i]
      out[#out + 1] = field
      out[#out + 1] = elements[i]
    end
    redis.call('HSET', KEYS[2], unpack(held))
    room = room - count
  end
end
return out
