-- Shows attempts as Celery's clients see a task that has started: its result, which says so, stored and published. Only
-- attempts that are active still: what has ended meanwhile has its answer, or gets it. A success of the same id that was
-- stored before stays, as everywhere.
--
-- KEYS  active
-- ARGV  how long a result stays (s, 0 for ever), then for each attempt: id, token of its claim, the key of its result, the document
-- Returns how many were shown.
local FIRST, WIDTH, SUCCESS = 2, 4, '{"status": "SUCCESS"'
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('HDEL', KEYS[1], '')
local ids = {}
for at = FIRST, #ARGV, WIDTH do
  ids[#ids + 1] = ARGV[at]
end
local holders = redis.call('HMGET', KEYS[1], unpack(ids))

local function show(key, document)
  if redis.call('GETRANGE', key, 0, #SUCCESS - 1) == SUCCESS then
    return false
  end
  if ARGV[1] == '0' then
    redis.call('SET', key, document)
  else
    redis.call('SET', key, document, 'EX', ARGV[1])
  end
  redis.call('PUBLISH', key, document)
  return true
end

local shown = 0
for n in ipairs(ids) do
  local at = FIRST + (n - 1) * WIDTH
  if holders[n] and string.match(holders[n], '^%d+') == ARGV[at + 1] then
    -- A key of another type costs this one its show and nobody else.
    local ok, done = pcall(show, ARGV[at + 2], ARGV[at + 3])
    if ok and done then
      shown = shown + 1
    end
  end
end
return shown
