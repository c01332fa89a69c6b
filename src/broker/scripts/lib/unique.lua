-- Unique keys: a part of the scripts that put jobs in, before which it stands (see script.rs).
-- An entry of the hash `unique` names who took a key last. Whether that job still holds it is worked out here, from where
-- it stands, whenever somebody asks; so no script that moves jobs has to know of keys, and nothing can drift.
--
-- KEYS     none of its own: the script hands in a table of the queue's keys, by the names that keys.rs gives them
-- ARGV     none of its own
-- Returns  what the script calls: unique_keys, told, put_off_no_longer
--
-- A field of the hash is the task, a space, and the key as JSON. An entry is `id until expires for since first mark`:
--   until    'started' | 'ended' | 'completed' | 'time' | 'throttle'
--   expires  when the time of its `for` is over (ms), 0 for never; of a throttle, reckoned from when it was due
--   for      of a throttle (ms), else 0: counted from the start, once there was one
--   since    when the job took the key (ms)
--   first    when the first of those came whose place it has taken (ms)
--   mark     SHA-1 of the history that the job had then, '-' for none: every attempt changes it
local function unique_keys(key, now)
  local function mark(id)
    local history = redis.call('HGET', key.history, id)
    return history and redis.sha1hex(history) or '-'
  end

  -- The set in which a job waits for an attempt, and the state that this is.
  local function waits(id)
    for _, state in ipairs({ 'pending', 'scheduled', 'retry' }) do
      if redis.call('ZSCORE', key[state], id) then
        return key[state], state
      end
    end
    if redis.call('ZSCORE', key.held, id) then
      return key.held, 'pending'
    end
  end

  -- The set in which a job waits (nil where it does not), and its state; none of a job that was purged.
  local function stands(id)
    local set, state = waits(id)
    if state then
      return set, state
    elseif redis.call('HEXISTS', key.active, id) == 1 then
      return nil, 'active'
    end
    for _, ended in ipairs({ 'completed', 'dead', 'cancelled' }) do
      if redis.call('ZSCORE', key[ended], id) then
        return nil, ended
      end
    end
  end

  -- When the first attempt of a job began, as far as its history or the running attempt tells.
  local function started(id)
    local history = redis.call('HGET', key.history, id) or ''
    return string.match(history, '"first_started":(%d+)')
      or string.match(history, '"end":{"state":"%a+","at":%d+,"started":(%d+)')
      or string.match(redis.call('HGET', key.active, id) or '', '^%S+ %S+ (%d+)')
  end

  -- Whether a record, as the daemon writes it, is of this task and has this key: it stands behind the task, with only the
  -- buckets between them.
  local function bears(record, task, text)
    local _, stop = string.find(record or '', '"task":"' .. task .. '"', 1, true)
    if not stop then
      return false
    end
    local _, behind = string.find(record, '^,"buckets":%[[^%]]*%]', stop + 1)
    local at, mine = (behind or stop) + 1, ',"unique":{"key":' .. text
    return string.sub(record, at, at + #mine - 1) == mine
  end

  -- Who holds a key: { id, state ('' when its record is deleted), since, free ('' while only a state can end it), set (in
  -- which it waits, if it does), first }; nil when nobody does, and then true if the job may come to hold it again: a purge can
  -- be taken back, and a throttled attempt may turn out to have been none.
  local function holder(field)
    local entry = redis.call('HGET', key.unique, field)
    if not entry then
      return nil
    end
    local id, till, expires, span, since, first, taken =
      string.match(entry, '^(%S+) (%a+) (%d+) (%d+) (%d+) (%d+) (%S+)$')
    local task, text = string.match(field, '^(%S+) (.*)$')
    -- A job of the same id that has another key, or none, is another job: its record tells.
    local is_it = bears(redis.call('HGET', key.jobs, id), task, text)
    local set, state
    if is_it then
      set, state = stands(id)
      if state == nil or state == 'cancelled' then
        return nil, state == nil
      end
    elseif till ~= 'time' and till ~= 'throttle' then
      return nil
    end
    expires = tonumber(expires)
    if till == 'throttle' and is_it then
      local start = started(id)
      if start then
        expires = tonumber(start) + tonumber(span)
      elseif set then
        expires = 0
      else
        -- It has ended without a start.
        return nil
      end
    end
    if expires > 0 and expires <= now
      or till == 'started' and not (set and taken == mark(id))
      or till == 'ended' and not (set or state == 'active')
      or till == 'completed' and state == 'completed' then
      return nil, till == 'throttle' and (set or state == 'active')
    end
    return { id = id, state = state or '', since = since, free = expires, set = set, first = tonumber(first) }
  end

  -- Ends a job that waits, for another one of its key. `ending` is the end of its history, as JSON. Returns its record and
  -- its new history when a foreign producer is owed word of it. No flow has to be told: its jobs are never unique.
  local function give_way(id, set, ending)
    redis.call('ZREM', set, id)
    redis.call('ZADD', key.cancelled, now, id)
    local history = redis.call('HGET', key.history, id) or '{}'
    local comma = history == '{}' and '' or ','
    history = string.sub(history, 1, -2) .. comma .. '"end":' .. ending .. '}'
    redis.call('HSET', key.history, id, history)
    redis.call('HINCRBY', key.counters, 'cancelled', 1)
    local record = redis.call('HGET', key.jobs, id)
    if string.find(record, '"origin":{"wire"', 1, true) then
      redis.call('HSET', key.outbox, id, '0')
      return { record, history }
    end
    return {}
  end

  -- The holder of a key, unless it is this very job: what is known under its id may start over, what is deleted was another.
  local function in_the_way(field, id)
    local held = holder(field)
    if held and (held.id ~= id or held.state == '') then
      return held
    end
  end

  -- Takes a key for a job that is to be put in: { id, field, way ('replace': a holder that waits gives way; 'refuse'),
  -- till, expires, span, ending (of one that gives way), mark
  -- (of a job with a history) }. Returns the holder if the key stays his, else nil; the id of
  -- the one that gave way, with what give_way said of it; and when the first of those came whose place it takes.
  local function claim(job)
    local held, replaced, owed = in_the_way(job.field, job.id), nil, nil
    local first = now
    if held then
      if job.way ~= 'replace' or not held.set then
        return held
      end
      replaced, owed, first = held.id, give_way(held.id, held.set, job.ending), held.first
    end
    redis.call('HSET', key.unique, job.field, table.concat({
      job.id, job.till, job.expires, job.span, string.format('%.0f', now), string.format('%.0f', first), job.mark or '-',
    }, ' '))
    return nil, replaced, owed, first
  end

  -- A job that is cancelled or deleted holds nothing.
  local function release(field, id)
    local entry = redis.call('HGET', key.unique, field)
    if entry and string.match(entry, '^%S+') == id then
      redis.call('HDEL', key.unique, field)
    end
  end

  return { holder = holder, in_the_way = in_the_way, claim = claim, release = release, mark = mark }
end

-- A holder as it is answered: its id, state, since when it holds the key, and when the time of that is over (or 0).
local function told(held)
  return { held.id, held.state, held.since, string.format('%.0f', held.free) }
end

-- Brings the start of a job forward to the longest that newcomers put it off, counted from the first of them. Returns its
-- record and its score in `scheduled`: the due time, whose fraction is the priority and stays.
local function put_off_no_longer(record, set, score, first, longest)
  local due = math.floor(tonumber(score))
  if set ~= 'scheduled' or longest == 0 or due <= first + longest then
    return record, score
  end
  local fraction = tonumber(score) - due
  due = string.format('%.0f', first + longest)
  -- Behind the arguments, whatever they hold, the record's own field is the last of this name.
  record = string.gsub(record, '^(.*"due":)%d+', '%1' .. due)
  return record, string.format('%.5f', due + fraction)
end
