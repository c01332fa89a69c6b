-- Renews a node's lease on all its queues and says where there is work for a sweep.
--
-- KEYS  for each queue: leases, active, inflight, outbox
-- ARGV  node, end of lease (ms)
-- Returns for each queue: the end of the earliest other lease (ms, or ''), active jobs, messages in flight,
-- answers owed; flat.
local node, lease = ARGV[1], ARGV[2]
local out = {}
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('ZREM', KEYS[1], '')
for i = 1, #KEYS, 4 do
  redis.call('ZADD', KEYS[i], lease, node)
  local earliest = ''
  local first = redis.call('ZRANGE', KEYS[i], 0, 1, 'WITHSCORES')
  for l = 1, #first, 2 do
    if first[l] ~= node and earliest == '' then
      earliest = first[l + 1]
    end
  end
  local at = #out
  out[at + 1] = earliest
  out[at + 2] = redis.call('HLEN', KEYS[i + 1])
  out[at + 3] = redis.call('HLEN', KEYS[i + 2])
  out[at + 4] = redis.call('HLEN', KEYS[i + 3])
end
return out
