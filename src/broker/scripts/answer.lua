-- Answers foreign producers and pays the debts, each answer in one transition with its debt: nobody answers twice, and
-- an answer that comes late does not overwrite a newer one. A command that Redis refuses costs the rest of its own answer
-- and no other; that debt stays, and what was written is written again with it. So keys whose commands must not be repeated
-- are looked at before anything is written.
--
-- A tally counts entries in a sorted set until they are as many as a size says; whoever brings the last one writes what
-- follows. That depends on all entries, so the caller has made it beforehand and says how many entries he knew: if they are
-- others now, nothing of the answer is written. Entries are only ever added, so the same number is the same entries.
--
-- KEYS  outbox
-- ARGV  how many forms of commands, and those: words, with {} for each value that a command brings; how many answers (at
--       most 1000); then for each answer: id, token of the settle that owes it, guard, the guard's key, how many commands
--       the guard is for, how many keys are looked at, how many tallies there are, how many other commands; then these in
--       this order. Command: number of its form, its values. Key: its name, its type if it exists. Tally: key of the
--       entries (ZSET), key of the size, key of a number to add to the size, how many seconds the three are kept ('' for ever), how many
--       entries make it full ('' if it is not to become full), how many entries it gets, and each: score, how an entry
--       begins that it replaces, how one begins that stays in its place, the entry
--       guard: '' for none; else its commands are left out if the key's value begins with that
-- Returns for each answer: 1 when the debt is paid, 0 when there was none or a newer one, 2 when a tally has become full or
-- has not, else Redis's refusal.
local HEAD = 8
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

local function refusal_of(reply)
  return type(reply) == 'table' and reply.err or nil
end

-- Runs so many commands that stand from `from` on. Returns where they end, and the refusal if one was refused.
local function run(from, count)
  for _ = 1, count do
    local form = forms[ARGV[from]]
    local words, values = form.words, form.values
    for v = 1, #values do
      words[values[v]] = ARGV[from + v]
    end
    local refusal = refusal_of(redis.pcall(unpack(words)))
    if refusal then
      return from, refusal
    end
    from = from + #values + 1
  end
  return from
end

-- Where so many commands end.
local function behind(from, count)
  for _ = 1, count do
    from = from + #forms[ARGV[from]].values + 1
  end
  return from
end

local function head_of(begin)
  local commands, checks, tallies, others = tonumber(ARGV[begin + 4]), tonumber(ARGV[begin + 5]), {}, nil
  local next_at = behind(begin + HEAD, commands)
  local head = { commands = begin + HEAD, commands_count = commands, checks = next_at, checks_count = checks }
  next_at = next_at + 2 * checks
  for n = 1, tonumber(ARGV[begin + 6]) do
    tallies[n] = next_at
    next_at = next_at + 6 + 4 * tonumber(ARGV[next_at + 5])
  end
  others = tonumber(ARGV[begin + 7])
  head.tallies, head.others, head.others_count = tallies, next_at, others
  head.ends = behind(next_at, others)
  return head
end

-- Whether the commands are to be written, and the refusal if their guard cannot be read.
local function may_write(guard, key)
  if guard == '' then
    return true
  end
  local value = redis.pcall('GETRANGE', key, 0, #guard - 1)
  return value ~= guard, refusal_of(value)
end

-- The refusal of a key that is of another type.
local function misfit(head)
  for c = 0, head.checks_count - 1 do
    local key, expected = ARGV[head.checks + 2 * c], ARGV[head.checks + 2 * c + 1]
    local found = redis.pcall('TYPE', key)
    if found.err then
      return found.err
    end
    if found.ok ~= 'none' and found.ok ~= expected then
      return 'WRONGTYPE ' .. key .. ' is a ' .. found.ok .. ', not a ' .. expected
    end
  end
end

-- Whether the tally at `from` comes out as its answer expects; and for each of its entries the one that it replaces.
local function weigh(from)
  local entries, size = ARGV[from], tonumber(redis.call('GET', ARGV[from + 1]) or '')
  local count, olds = redis.call('ZCARD', entries), {}
  for n = 1, tonumber(ARGV[from + 5]) do
    local own = from + 2 + 4 * n
    local score, begins = ARGV[own], ARGV[own + 1]
    if score == '+inf' then
      -- Entries without a place of their own may be many: of these only the very same is known again.
      olds[n] = redis.call('ZSCORE', entries, ARGV[own + 3]) and ARGV[own + 3]
    else
      for _, entry in ipairs(redis.call('ZRANGEBYSCORE', entries, score, score)) do
        if string.sub(entry, 1, #begins) == begins then
          olds[n] = entry
          break
        end
      end
    end
    count = count + (olds[n] and 0 or 1)
  end
  local is_full = size and count == size + (tonumber(redis.call('GET', ARGV[from + 2]) or '') or 0)
  local expected = ARGV[from + 4]
  return (is_full and tostring(count) or '') == expected, olds
end

local function add(from, olds)
  local entries = ARGV[from]
  for n = 1, tonumber(ARGV[from + 5]) do
    local own = from + 2 + 4 * n
    local old, stands = olds[n], ARGV[own + 2]
    if not old or string.sub(old, 1, #stands) ~= stands then
      if old then
        redis.call('ZREM', entries, old)
      end
      redis.call('ZADD', entries, ARGV[own], ARGV[own + 3])
    end
  end
  if ARGV[from + 3] ~= '' then
    for k = 0, 2 do
      redis.call('EXPIRE', ARGV[from + k], ARGV[from + 3])
    end
  end
end

local function answer(begin, head)
  local may, refusal = may_write(ARGV[begin + 2], ARGV[begin + 3])
  refusal = refusal or misfit(head)
  if refusal then
    return refusal
  end
  local olds = {}
  for n, from in ipairs(head.tallies) do
    local as_expected
    as_expected, olds[n] = weigh(from)
    if not as_expected then
      return 2
    end
  end
  local _
  if may then
    _, refusal = run(head.commands, head.commands_count)
  end
  if refusal then
    return refusal
  end
  for n, from in ipairs(head.tallies) do
    add(from, olds[n])
  end
  _, refusal = run(head.others, head.others_count)
  return refusal or 1
end

local ids, begins, heads, count = {}, {}, {}, tonumber(ARGV[at])
at = at + 1
for n = 1, count do
  ids[n], begins[n], heads[n] = ARGV[at], at, head_of(at)
  at = heads[n].ends
end

local owed = redis.call('HMGET', KEYS[1], unpack(ids))
local out, seen = {}, {}
for n = 1, #ids do
  if owed[n] == ARGV[begins[n] + 1] and not seen[ids[n]] then
    seen[ids[n]] = true
    out[n] = answer(begins[n], heads[n])
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
