-- Takes words off a queue's list, oldest first, and does in their flows what follows from each: who follows becomes ready,
-- joins are passed, callbacks become ready once. A word and what follows from it are one step, so it counts once, whoever
-- reads it how often; what another has taken meanwhile ends the call.
--
-- KEYS  words, due, completed flows, stopped flows, then for each flow that is named: plan, state, ready
-- ARGV  now (ms), then for each word: its text in the list, number of its flow among those of KEYS (0 for a word that
--       nobody can read), flow, what the ids of its jobs start with, name of the job, how it stands now ('c' completed,
--       'd' dead, 'x' cancelled, 'r' started once more), its result (JSON, or ''), what it died of
-- Returns how many words were taken.
local FIRST, WIDTH, FIRST_FLOW = 2, 8, 5
local COUNTS = { 'total', 'completed', 'dead', 'cancelled', 'live', 'calls' }
local COUNT_OF = { c = 'completed', d = 'dead', x = 'cancelled', r = 'live' }
local CALLBACKS = { on_success = true, on_complete = true, on_death = true }
local flows = {}

local function flow_of(number, id, prefix)
  if flows[number] ~= nil then
    return flows[number]
  end
  local at = FIRST_FLOW + (number - 1) * 3
  local flow = { id = id, prefix = prefix, plan = KEYS[at], state = KEYS[at + 1], ready = KEYS[at + 2] }
  local counts = redis.call('HMGET', flow.state, unpack(COUNTS))
  -- A flow that was deleted has nobody waiting.
  if not counts[1] then
    flow = false
  else
    for c, name in ipairs(COUNTS) do
      flow[name] = tonumber(counts[c] or 0)
    end
    flow.is_cancelled = redis.call('HEXISTS', flow.state, 'cancel') == 1
  end
  flows[number] = flow
  return flow
end

local function count(flow, name, letter, by)
  if not CALLBACKS[name] then
    flow[COUNT_OF[letter]] = flow[COUNT_OF[letter]] + by
  elseif letter == 'r' then
    flow.calls = flow.calls + by
  end
end

local follow

-- It may start now; a join is passed at once. Of a cancelled flow nothing starts.
local function release(flow, name)
  if flow.is_cancelled or redis.call('HEXISTS', flow.state, 's/' .. name) == 1 then
    return
  end
  if string.sub(name, 1, 1) == '+' then
    redis.call('HSET', flow.state, 's/' .. name, 'c')
    follow(flow, '>/' .. name)
    follow(flow, '~/' .. name)
  else
    redis.call('HSET', flow.state, 's/' .. name, 'r')
    redis.call('SADD', flow.ready, flow.prefix .. name)
    redis.call('SADD', KEYS[2], flow.id)
    count(flow, name, 'r', 1)
  end
end

local function call_back(flow, name)
  if redis.call('HEXISTS', flow.plan, 'd/' .. name) == 1 then
    release(flow, name)
  end
end

function follow(flow, field)
  for name in string.gmatch(redis.call('HGET', flow.plan, field) or '', '%S+') do
    if redis.call('HINCRBY', flow.state, 'w/' .. name, -1) == 0 then
      release(flow, name)
    end
  end
end

local function hear(flow, name, letter, result, failure)
  local before = redis.call('HGET', flow.state, 's/' .. name)
  -- What is completed stays so for its flow: others have started on it.
  if not before or before == 'c' or before == letter then
    return
  end
  -- What is about to start has not ended: this is said of an earlier life, whose record somebody deleted before the flow was
  -- told to go again.
  if before == 'r' and redis.call('SISMEMBER', flow.ready, flow.prefix .. name) == 1 then
    return
  end
  redis.call('HSET', flow.state, 's/' .. name, letter)
  count(flow, name, before, -1)
  count(flow, name, letter, 1)
  if letter == 'c' and result ~= '' then
    redis.call('HSET', flow.state, 'r/' .. name, result)
  end
  if letter ~= 'r' and redis.call('HSETNX', flow.state, 'a/' .. name, '1') == 1 then
    follow(flow, '~/' .. name)
  end
  if letter == 'c' then
    follow(flow, '>/' .. name)
  elseif letter == 'd' then
    redis.call('HSET', flow.state, 'e/' .. name, failure)
    if not CALLBACKS[name] and redis.call('HSETNX', flow.state, 'died', '1') == 1 then
      call_back(flow, 'on_death')
    end
  end
  if flow.completed == flow.total then
    call_back(flow, 'on_success')
  end
  if flow.live == 0 then
    call_back(flow, 'on_complete')
  end
end

local taken = 0
for at = FIRST, #ARGV, WIDTH do
  if redis.call('LINDEX', KEYS[1], 0) ~= ARGV[at] then
    break
  end
  redis.call('LPOP', KEYS[1])
  taken = taken + 1
  local number = tonumber(ARGV[at + 1])
  local flow = number > 0 and flow_of(number, ARGV[at + 2], ARGV[at + 3])
  if flow then
    hear(flow, ARGV[at + 4], ARGV[at + 5], ARGV[at + 6], ARGV[at + 7])
  end
end
for _, flow in pairs(flows) do
  if flow then
    for _, name in ipairs(COUNTS) do
      redis.call('HSET', flow.state, name, flow[name])
    end
    redis.call('ZREM', KEYS[3], flow.id)
    redis.call('ZREM', KEYS[4], flow.id)
    if flow.live == 0 and flow.calls == 0 then
      redis.call('ZADD', flow.completed == flow.total and KEYS[3] or KEYS[4], ARGV[1], flow.id)
    end
  end
end
return taken
