-- Takes jobs for one attempt each: from pending to active under a fresh fencing token, and renews the node's lease.
--
-- KEYS  pending, jobs, history, active, leases, counters
-- ARGV  now (ms), node, end of lease (ms), how many at most
-- Returns { id, token, record, history or '' } for each claim, flat.
local now, node, lease, want = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
-- Only ever later: this call may have waited on its way while a heartbeat overtook it.
redis.call('ZADD', KEYS[5], 'GT', lease, node)
local popped = redis.call('ZPOPMIN', KEYS[1], want)
if #popped == 0 then
  return {}
end
local ids = {}
for i = 1, #popped, 2 do
  ids[#ids + 1] = popped[i]
end
local records = redis.call('HMGET', KEYS[2], unpack(ids))
local histories = redis.call('HMGET', KEYS[3], unpack(ids))
local token = redis.call('HINCRBY', KEYS[6], 'token', #ids) - #ids
local claims, active = {}, {}
for i = 1, #ids do
  -- A job without a record was deleted while it waited.
  if records[i] then
    -- string.format, because Lua writes numbers from 1e14 on in exponent form.
    local number = string.format('%.0f', token + i)
    local at = #claims
    claims[at + 1], claims[at + 2], claims[at + 3], claims[at + 4] = ids[i], number, records[i], histories[i] or ''
    local mark = #active
    active[mark + 1], active[mark + 2] = ids[i], number .. ' ' .. node .. ' ' .. now
  end
end
if #active > 0 then
  redis.call('HSET', KEYS[4], unpack(active))
end
return claims
