-- Stands before scripts that end RQ's jobs: enqueues jobs as RQ does, and lets those go that waited for an ended one.
--
-- KEYS  none
-- ARGV  none: `base` (what RQ's keys begin with) and `iso` (now) are handed to `waiting`
-- Returns nothing: `waiting(base, iso)` gives the functions enqueue and release.
local function waiting(base, iso)
  -- At the end or the front of its queue, with the time that it may wait there.
  local function enqueue(id, origin, front, ttl, timeout)
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
      local accepted = known[1] and known[2] and known[1] ~= 'canceled' and (outcome ~= 'failed' or allow)
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
  return enqueue, release
end
