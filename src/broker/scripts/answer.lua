-- Answers foreign producers and pays the debts, each answer in one transition with its debt: nobody answers twice, and
-- an answer that comes late does not overwrite a newer one. A command that Redis refuses (a key of another type) costs
-- the rest of its own answer and no other; that debt stays.
--
-- KEYS  outbox
-- ARGV  how many forms of commands, and those: words, with {} for each value that a command brings; how many answers (at
--       most 1000); then for each answer: id, token of the settle that owes it, guard, the guard's key, how many commands
--       it has, its commands (each: number of its form, its values)
--       guard: '' for none; else nothing is written if the key's value begins with that
-- Returns for each answer: 1 when the debt is paid, 0 when there was none or a newer one, else Redis's refusal.
local HEAD = 5
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('HDEL', KEYS[1], '')

local forms, at = {}, 2
for f = 1, tonumber(ARGV[1]) do
  local words, values = {}, {}
  for word in string.gmatch(ARGV[at], '%S+') do
    words[#words + 1] = word
    if word == '{}' then
      values[#values + 1] = #words
    end
  end
  forms[tostring(f)], at = { words = words, values = values }, at + 1
end

-- Runs the command that stands at `from`. Returns where it ends, and the refusal if it was refused.
local function run(from)
  local form = forms[ARGV[from]]
  local words, values = form.words, form.values
  for v = 1, #values do
    words[values[v]] = ARGV[from + v]
  end
  local reply = redis.pcall(unpack(words))
  return from + #values + 1, type(reply) == 'table' and reply.err or nil
end

-- Whether the answer is to be written, and the refusal if its guard cannot be read.
local function may_write(guard, key)
  if guard == '' then
    return true
  end
  local value = redis.pcall('GETRANGE', key, 0, #guard - 1)
  return value ~= guard, type(value) == 'table' and value.err or nil
end

local ids, begins, count = {}, {}, tonumber(ARGV[at])
at = at + 1
for n = 1, count do
  ids[n], begins[n] = ARGV[at], at
  local commands = tonumber(ARGV[at + 4])
  at = at + HEAD
  for _ = 1, commands do
    at = at + #forms[ARGV[at]].values + 1
  end
end

local owed = redis.call('HMGET', KEYS[1], unpack(ids))
local out, seen = {}, {}

local function answer(n)
  local head = begins[n]
  local may, refusal = may_write(ARGV[head + 2], ARGV[head + 3])
  if refusal or not may then
    return refusal or 1
  end
  local next_at = head + HEAD
  for _ = 1, tonumber(ARGV[head + 4]) do
    next_at, refusal = run(next_at)
    if refusal then
      return refusal
    end
  end
  return 1
end

for n = 1, #ids do
  if owed[n] == ARGV[begins[n] + 1] and not seen[ids[n]] then
    seen[ids[n]] = true
    out[n] = answer(n)
  else
    out[n] = 0
  end
end
local paid = {}
for n = 1, #ids do
  if out[n] == 1 then
    paid[#paid + 1] = ids[n]
  end
end
if #paid > 0 then
  redis.call('HDEL', KEYS[1], unpack(paid))
end
return out
