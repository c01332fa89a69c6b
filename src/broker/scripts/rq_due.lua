-- Puts RQ's scheduled jobs that have become due into their queue, as its scheduler: under its lock, which is renewed.
--
-- KEYS  RQ's registry of scheduled jobs, its queue, the lock of its scheduler, our retry
-- ARGV  what RQ's keys begin with, now (ISO), now (whole s), who we are in the lock, how long it lasts (s), how many jobs
--       at most
-- Returns { 1 if we are the scheduler, else 0; when the next job is due (s, or ''); how many were moved }.
local base, iso, now, me, lasts, most = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('ZREM', KEYS[1], '')
local enqueue = waiting(base, iso, now)
local holder = redis.call('GET', KEYS[3])
if holder and holder ~= me then
  return { 0, '', 0 }
end
redis.call('SET', KEYS[3], me, 'EX', lasts)
local moved = 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], 0, now, 'LIMIT', 0, most)) do
  -- One of ours that waits for its next attempt: it begins by itself, now.
  if not redis.call('ZSCORE', KEYS[4], id) then
    local known = redis.call('HMGET', base .. 'job:' .. id, 'data', 'origin', 'enqueue_at_front', 'ttl', 'timeout', 'status')
    if known[1] and known[6] ~= 'canceled' then
      local origin = known[2] or string.sub(KEYS[2], #base + #'queue:' + 1)
      enqueue(id, origin, known[3] == '1', known[4], known[5])
      moved = moved + 1
    end
  end
  redis.call('ZREM', KEYS[1], id)
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return { 1, first[2] or '', moved }
