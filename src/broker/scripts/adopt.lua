-- Takes over messages that nodes without a valid lease took and did not admit, and lists the caller's own.
--
-- KEYS  inflight, leases, counters
-- ARGV  now (ms), node (the caller), limit
-- Returns { field (`node/number NUL list`), element } for each message that the caller now holds, flat: those taken over, and those it
-- had already (it knows which of them it is still working on).
local now, me, limit = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('HDEL', KEYS[1], '')
local out, n = {}, 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if n >= limit then
    break
  end
  local field, node, list = all[i], string.match(all[i], '^(.*)/%d+%z(.*)$')
  node = node or ''
  local lease = tonumber(redis.call('ZSCORE', KEYS[2], node) or 0)
  if node == me then
    n = n + 1
    out[#out + 1], out[#out + 2] = field, all[i + 1]
  elseif lease <= now then
    local number = redis.call('HINCRBY', KEYS[3], 'message', 1)
    local mine = me .. '/' .. string.format('%.0f', number) .. '\0' .. (list or '')
    redis.call('HDEL', KEYS[1], field)
    redis.call('HSET', KEYS[1], mine, all[i + 1])
    n = n + 1
    out[#out + 1], out[#out + 2] = mine, all[i + 1]
  end
end
return out
