-- Answers a foreign producer and pays the debt, in one transition: nobody answers twice, and an answer that comes late
-- does not overwrite a newer one.
--
-- KEYS  outbox
-- ARGV  id, token of the settle that owes the answer, guard ('' | 'exists' | 'unless'), the guard's key, the guard's
--       text, then commands: how many arguments each has, and those
--       exists: the commands run only if the key exists; unless: not if its value begins with the text
-- Returns 1 when the debt is paid, 0 when there was none or a newer one.
local id, token, guard, key, text = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if redis.call('HGET', KEYS[1], id) ~= token then
  return 0
end
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('HDEL', KEYS[1], '')
local run = true
if guard == 'exists' then
  run = redis.call('EXISTS', key) == 1
elseif guard == 'unless' then
  local value = redis.call('GET', key)
  run = not (value and string.sub(value, 1, #text) == text)
end
local i = 6
while run and i <= #ARGV do
  local n = tonumber(ARGV[i])
  redis.call(unpack(ARGV, i + 1, i + n))
  i = i + n + 1
end
return redis.call('HDEL', KEYS[1], id)
