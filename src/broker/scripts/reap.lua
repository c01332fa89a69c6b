-- Takes over what nodes without a valid lease hold, under fresh tokens, and lists what the caller itself holds.
-- The caller settles what it took over, as any claim; should it die before that, it is the next one's to take over.
--
-- What an attempt drew from the buckets of limits stays drawn.
--
-- KEYS  leases, active, jobs, history, counters, used, lines
-- ARGV  leases that ended by this time are over (ms), now (ms), node (the caller), limit
-- Returns { the claims of the caller: id, token, started …, flat },
--         { taken over: id, token, record, history or '', old node, end of its lease (ms, or ''), started …, flat }.
local over, now, me, limit = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('HDEL', KEYS[2], '')
local leases, expired_nodes = {}, {}
local known = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #known, 2 do
  leases[known[i]] = known[i + 1]
  if tonumber(known[i + 1]) <= over and known[i] ~= me then
    expired_nodes[known[i]] = true
  end
end
local mine, taken, more, given = {}, {}, {}, {}
local active = redis.call('HGETALL', KEYS[2])
for i = 1, #active, 2 do
  local id = active[i]
  local token, node, started, drawn = string.match(active[i + 1], '^(%d+) (%S+) (%d+)(.*)$')
  if node == me then
    local at = #mine
    mine[at + 1], mine[at + 2], mine[at + 3] = id, token, started
  elseif node == nil or not leases[node] or expired_nodes[node] then
    if #taken / 7 < limit then
      local record = redis.call('HGET', KEYS[3], id)
      if record then
        local fresh = string.format('%.0f', redis.call('HINCRBY', KEYS[5], 'token', 1))
        redis.call('HSET', KEYS[2], id, fresh .. ' ' .. me .. ' ' .. (started or now) .. (drawn or ''))
        local at = #taken
        taken[at + 1], taken[at + 2], taken[at + 3] = id, fresh, record
        taken[at + 4] = redis.call('HGET', KEYS[4], id) or ''
        taken[at + 5], taken[at + 6], taken[at + 7] = node or '', leases[node] or '', started or now
      else
        -- Deleted while it ran under a node that is gone.
        redis.call('HDEL', KEYS[2], id)
        add_draws(drawn or '', given)
        redis.call('ZADD', KEYS[7], 'XX', 0, '*')
      end
    else
      more[node or ''] = true
    end
  end
end
give_back(KEYS[6], KEYS[7], given)
for node in pairs(expired_nodes) do
  if not more[node] then
    redis.call('ZREM', KEYS[1], node)
  end
end
return { mine, taken }
