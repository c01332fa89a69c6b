-- Deletes a part of what a purge took, for good: one step; the caller goes on until nothing is left. A job whose producer
-- has sent it again since stands elsewhere, maybe in the trash of a later purge, and keeps its record.
--
-- KEYS  trash (and, beside it, the hashes trash/ID/manifest), the purge's own one (see purge; it names the further keys),
--       active, pending, scheduled, retry, completed, dead, cancelled, held, jobs, history, large, notes, words
-- ARGV  purge, limit for each key (at most 1000), now (ms)
-- Returns how many are left.
local limit, left = tonumber(ARGV[2]), 0

-- What other purges took can be put back.
local others = {}
for _, purge in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local taken = purge == ARGV[1] and {} or redis.call('HGETALL', KEYS[1] .. '/' .. purge .. '/manifest')
  for i = 1, #taken, 2 do
    if string.sub(taken[i + 1], 1, 1) == '-' then
      others[#others + 1] = taken[i]
    end
  end
end

local function stands(id)
  if redis.call('HEXISTS', KEYS[3], id) == 1 then
    return true
  end
  for k = 4, 10 do
    if redis.call('ZSCORE', KEYS[k], id) then
      return true
    end
  end
  for _, taken in ipairs(others) do
    if redis.call('ZSCORE', taken, id) then
      return true
    end
  end
  return false
end

-- A flow waits for its jobs: it is told that this one will not run.
local function tell_flow(id)
  local is_json, job = pcall(cjson.decode, redis.call('HGET', KEYS[11], id) or '')
  if is_json and type(job.flow) == 'table' then
    local word = { flow = job.flow.id, name = job.flow.name, what = 'cancelled', at = tonumber(ARGV[3]) }
    redis.call('RPUSH', KEYS[15], cjson.encode(word))
  end
end

local held = redis.call('HGETALL', KEYS[2])
for i = 1, #held, 2 do
  if string.sub(held[i + 1], 1, 1) == '-' then
    local ids = redis.call('ZRANGE', held[i], 0, limit - 1)
    for _, id in ipairs(ids) do
      if not stands(id) then
        tell_flow(id)
        for k = 11, 14 do
          redis.call('HDEL', KEYS[k], id)
        end
      end
    end
    if #ids > 0 then
      redis.call('ZREMRANGEBYRANK', held[i], 0, #ids - 1)
    end
    left = left + redis.call('ZCARD', held[i])
  else
    redis.call('LTRIM', held[i], limit, -1)
    left = left + redis.call('LLEN', held[i])
  end
end
if left == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('DEL', KEYS[2])
end
return left
