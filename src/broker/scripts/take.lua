-- Takes messages from the foreign lists of a queue into its in-flight record, no more than there is room for: what is
-- pending already comes first, and a paused queue takes nothing. From here on a message is in exactly one place of ours
-- until it is admitted.
--
-- The wires take turns, a message each, so that none starves beside a busy one. A wire's own rule says which of its lists
-- is next: one of the lowest step that holds something, and of a step the lists take turns too.
--
-- KEYS  pending, inflight, counters, leases, pauses, held, the key whose existence suspends RQ's workers (of a queue without
--       lists of RQ any other), then the lists in the order of their turns, those of a wire together
-- ARGV  node, end of its lease (ms), room, how many messages at most (1000), how many jobs may wait in all, where some are
--       held (else ''), then for each list: the side to take from ('R', or of a list of RQ 'L'), its step (from 1)
-- Returns { how much of the room is taken, or 'paused'; '1' if lists of RQ were left alone, else ''; then for each message:
-- its field in the in-flight record (`node/number NUL list`) and the element }, flat, in the order of the turns.
local FIRST_KEY, FIRST_SIDE = 8, 6
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
  return { 'paused', '' }
end
local out = { string.format('%.0f', math.max(tonumber(ARGV[3]) - left, 0)), '' }
if room <= 0 then
  return out
end

-- The wires that offer something, in turn: of each its steps, of a step its lists in turn with what they hold.
local suspended = redis.call('EXISTS', KEYS[7]) == 1
local wires, of = {}, {}
for l = 0, #KEYS - FIRST_KEY do
  local side, step = ARGV[FIRST_SIDE + 2 * l], tonumber(ARGV[FIRST_SIDE + 2 * l + 1])
  if side == 'L' and suspended then
    out[2] = '1'
  else
    local list = { key = KEYS[FIRST_KEY + l], side = side, holds = redis.call('LLEN', KEYS[FIRST_KEY + l]), taken = 0 }
    if list.holds > 0 then
      if not of[side] then
        of[side] = { at = 1, last = 0, steps = {} }
        wires[#wires + 1] = of[side]
      end
      local wire = of[side]
      wire.last = math.max(wire.last, step)
      wire.steps[step] = wire.steps[step] or {}
      table.insert(wire.steps[step], list)
    end
  end
end

-- Whose messages come, one after the other, and from how many of each list.
local plan, touched = {}, {}
while #plan < room and #wires > 0 do
  local wire = table.remove(wires, 1)
  while not wire.steps[wire.at] do
    wire.at = wire.at + 1
  end
  local lists = wire.steps[wire.at]
  local list = table.remove(lists, 1)
  -- Where nobody else has a turn it goes on.
  local many = (#wires == 0 and #lists == 0) and math.min(list.holds - list.taken, room - #plan) or 1
  if list.taken == 0 then
    touched[#touched + 1] = list
  end
  list.taken = list.taken + many
  for _ = 1, many do
    plan[#plan + 1] = list
  end
  if list.taken < list.holds then
    lists[#lists + 1] = list
  elseif #lists == 0 then
    wire.steps[wire.at], wire.at = nil, wire.at + 1
  end
  if wire.at <= wire.last then
    wires[#wires + 1] = wire
  end
end
if #plan == 0 then
  return out
end

for _, list in ipairs(touched) do
  list.elements, list.nth = redis.call(list.side == 'L' and 'LPOP' or 'RPOP', list.key, list.taken), 0
end
local held, number = {}, redis.call('HINCRBY', KEYS[3], 'message', #plan) - #plan
for n, list in ipairs(plan) do
  list.nth = list.nth + 1
  -- The list stands in the field, because elements are long: joining them with anything costs.
  local field = node .. '/' .. string.format('%.0f', number + n) .. '\0' .. list.key
  held[2 * n - 1], held[2 * n] = field, list.elements[list.nth]
  out[2 * n + 1], out[2 * n + 2] = field, list.elements[list.nth]
end
redis.call('HSET', KEYS[2], unpack(held))
return out
