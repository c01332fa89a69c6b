-- Renews a node's lease on all its queues and says where there is work for a sweep.
-- Also keeps since when somebody's heartbeats have come without a gap: a node whose lease ended in such a time could have
-- renewed it, so it is dead; one whose lease ended in a gap may only have been cut off, as everybody was.
--
-- KEYS  for each queue: leases, active, inflight, outbox, counters
-- ARGV  node, end of lease (ms), now (ms), longest time between two heartbeats that is no gap (ms)
-- Returns for each queue: the end of the earliest other lease (ms, or ''), active jobs, messages in flight,
-- answers owed, since when the heartbeats have no gap (ms); flat.
local node, lease, now, gap = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local out = {}
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('ZREM', KEYS[1], '')
for i = 1, #KEYS, 5 do
  redis.call('ZADD', KEYS[i], lease, node)
  local earliest = ''
  local first = redis.call('ZRANGE', KEYS[i], 0, 1, 'WITHSCORES')
  for l = 1, #first, 2 do
    if first[l] ~= node and earliest == '' then
      earliest = first[l + 1]
    end
  end
  local beats = redis.call('HMGET', KEYS[i + 4], 'beat', 'unbroken')
  local last, unbroken = tonumber(beats[1] or 0), tonumber(beats[2] or now)
  -- A clock that was set back makes a gap too.
  if now - last > gap or last - now > gap then
    unbroken = now
  end
  unbroken = string.format('%.0f', unbroken)
  redis.call('HSET', KEYS[i + 4], 'beat', ARGV[3], 'unbroken', unbroken)
  local at = #out
  out[at + 1] = earliest
  out[at + 2] = redis.call('HLEN', KEYS[i + 1])
  out[at + 3] = redis.call('HLEN', KEYS[i + 2])
  out[at + 4] = redis.call('HLEN', KEYS[i + 3])
  out[at + 5] = unbroken
end
return out
