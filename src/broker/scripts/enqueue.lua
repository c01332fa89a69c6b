-- Adds jobs. A job whose id exists already is left as it is. Jobs of a flow come out of its ready ones in the same step, so
-- each of them is added once.
--
-- KEYS  jobs, large, pending, scheduled, held (and, beside it, the lines held/NAME), lines, turns, counters, and, if they are
--       jobs of a flow, the flow's ready ones
-- ARGV  for each job: id, record (JSON), set ('pending' | 'scheduled'), score, its arguments if they are too large for
--       the record (JSON, else ''), the line of its tenant if tenants take turns (else '')
-- Returns an array: 1 for each job that was added, 0 for each that was there, 2 for each that is not ready.
local WIDTH, ready = 6, KEYS[9]
local ids = {}
for i = 1, #ARGV, WIDTH do
  ids[#ids + 1] = ARGV[i]
end
local known = redis.call('HMGET', KEYS[1], unpack(ids))
local added, seen, records, large, tenants = {}, {}, {}, {}, {}
local sets = { pending = {}, scheduled = {}, held = {} }
for n = 1, #ids do
  local id, at = ids[n], (n - 1) * WIDTH
  if ready and redis.call('SISMEMBER', ready, id) == 0 then
    added[n] = 2
  elseif known[n] or seen[id] then
    added[n] = 0
  else
    if ready then
      redis.call('SREM', ready, id)
    end
    seen[id] = true
    local r, list = #records, sets[ARGV[at + 3]]
    if ARGV[at + 6] ~= '' and list == sets.pending then
      list = sets.held
      local line = tenants[ARGV[at + 6]] or {}
      local n = #line
      line[n + 1], line[n + 2], tenants[ARGV[at + 6]] = ARGV[at + 4], id, line
    end
    local l = #list
    records[r + 1], records[r + 2] = id, ARGV[at + 2]
    list[l + 1], list[l + 2] = ARGV[at + 4], id
    if ARGV[at + 5] ~= '' then
      large[#large + 1] = id
      large[#large + 1] = ARGV[at + 5]
    end
    added[n] = 1
  end
end
if #records > 0 then
  redis.call('HSET', KEYS[1], unpack(records))
end
if #large > 0 then
  redis.call('HSET', KEYS[2], unpack(large))
end
if #sets.pending > 0 then
  redis.call('ZADD', KEYS[3], unpack(sets.pending))
end
if #sets.scheduled > 0 then
  redis.call('ZADD', KEYS[4], unpack(sets.scheduled))
end
if #sets.held > 0 then
  redis.call('ZADD', KEYS[5], unpack(sets.held))
  -- Whoever has no turn yet starts where the line is.
  local turn = redis.call('HGET', KEYS[8], 'turn') or '0'
  for tenant, line in pairs(tenants) do
    redis.call('ZADD', KEYS[5] .. '/' .. tenant, unpack(line))
    redis.call('ZADD', KEYS[7], 'GT', turn, tenant)
    redis.call('ZADD', KEYS[6], 'NX', '+inf', tenant)
  end
end
return added
