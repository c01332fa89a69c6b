-- Stands before scripts that end RQ's jobs: enqueues jobs as RQ does, and lets those go that waited for an ended one, or
-- for a place under their rate limit.
--
-- RQ from 2.9 on lets so many jobs of a key stand in queues or run; the others wait. Who ends a job gives its place to the
-- one that has waited longest: `rl:KEY:allowed` holds those with a place, `rl:KEY:rate_limited` the others.
--
-- KEYS  none
-- ARGV  none: `base` (what RQ's keys begin with), `iso` (now) and `now` (s) are handed to `waiting`
-- Returns nothing: `waiting(base, iso, now)` gives the functions enqueue, release, push, give_back and fill.
local function waiting(base, iso, now)
  -- At the end or the front of its queue, with the time that it may wait there. A job with a rate limit has its place.
  local function push(id, origin, front, ttl, timeout)
    local job = base .. 'job:' .. id
    redis.call('HSET', job, 'status', 'queued', 'enqueued_at', iso)
    if not timeout then
      redis.call('HSET', job, 'timeout', '180')
    end
    if ttl and tonumber(ttl) > 0 then
      redis.call('EXPIRE', job, ttl)
    end
    redis.call(front and 'LPUSH' or 'RPUSH', base .. 'queue:' .. origin, id)
  end

  -- Gives the free places of a key to those that have waited longest, as many as may have one.
  local function fill(key)
    local limit = base .. 'rl:' .. key
    local most = tonumber(redis.call('HGET', limit, 'concurrency') or 0)
    while redis.call('ZCARD', limit .. ':allowed') < most do
      local id = redis.call('ZPOPMIN', limit .. ':rate_limited')[1]
      if not id then
        return
      end
      local known = redis.call('HMGET', base .. 'job:' .. id, 'origin', 'status', 'enqueue_at_front', 'timeout')
      if known[1] and known[2] == 'rate_limited' then
        redis.call('ZADD', limit .. ':allowed', now, id)
        push(id, known[1], known[3] == '1', nil, known[4])
      end
    end
  end

  -- The job needs its place no more.
  local function give_back(id, key)
    redis.call('ZREM', base .. 'rl:' .. key .. ':allowed', id)
    fill(key)
  end

  -- As push; but one with a rate limit waits until it has a place.
  local function enqueue(id, origin, front, ttl, timeout)
    local job = base .. 'job:' .. id
    local limited = redis.call('HMGET', job, 'rate_limit_key', 'rate_limit_concurrency')
    local key, most = limited[1], limited[2]
    if not key or key == '' or not tonumber(most) then
      return push(id, origin, front, ttl, timeout)
    end
    redis.call('SADD', base .. 'rl-keys', key)
    redis.call('HSET', base .. 'rl:' .. key, 'concurrency', most)
    redis.call('HSET', job, 'status', 'rate_limited', 'enqueue_at_front', front and '1' or '0')
    if ttl and tonumber(ttl) > 0 then
      redis.call('EXPIRE', job, ttl)
    end
    redis.call('ZADD', base .. 'rl:' .. key .. ':rate_limited', now, id)
    fill(key)
  end

  -- Whether everything that the job waits for besides `parent` has ended in a way that it accepts.
  local function others_are_met(id, parent, allow)
    for _, dependency in ipairs(redis.call('SMEMBERS', base .. 'job::' .. id .. ':dependencies')) do
      if dependency ~= parent then
        local status = redis.call('HGET', base .. 'job:' .. dependency, 'status')
        if status and status ~= 'finished' and not (allow and status == 'failed') then
          return false
        end
      end
    end
    return true
  end

  -- Enqueues the jobs that waited for this one, by RQ's own rules.
  local function release(parent, outcome)
    local key, gone = base .. 'job:' .. parent .. ':dependents', {}
    for _, id in ipairs(redis.call('SMEMBERS', key)) do
      local known = redis.call('HMGET', base .. 'job:' .. id, 'status', 'origin', 'allow_dependency_failures',
        'enqueue_at_front', 'ttl', 'timeout')
      local allow = known[3] == '1'
      -- Who stops a job does not want what was to follow it: RQ 3.0's rule, 2.0 goes on.
      local goes_on = outcome == 'finished' or outcome == 'failed' and allow
      local accepted = known[1] and known[2] and known[1] ~= 'canceled' and goes_on
      if accepted and others_are_met(id, parent, allow) then
        redis.call('ZREM', base .. 'deferred:' .. known[2], id)
        enqueue(id, known[2], known[4] == '1', known[5], known[6])
        gone[#gone + 1] = id
      end
    end
    if #gone > 0 then
      redis.call('SREM', key, unpack(gone))
    end
  end
  return enqueue, release, push, give_back, fill
end
