-- Stands before claim: whether the buckets of limits have room, and what is drawn from them. All that is needed of them is
-- asked for all jobs that are looked at together, and written once; between that a bucket is a number, its place in `room`.
--
-- KEYS  none
-- ARGV  those of claim, from the one on that is handed over: for each limit its name, concurrency (or ''), points of each
--       job (or '': as its record says), how many windows, and for each of these: points, length (ms)
-- Returns nothing: `limits_of(used, at, clock, running, windows)` gives the functions below. `used` is the key, `clock` the
-- time (ms); `running` says how many jobs run, and `windows` opens lib/windows, where that is asked for.
local function limits_of(used, at, clock, running, windows)
  -- A bucket without room is looked at anew so often, whatever happens; and as soon as others have gone (ms).
  local ANYWAY, SOON = 60000, 1000
  local find, sub, match, min = string.find, string.sub, string.match, math.min
  -- All limits by name, and those with a key, which begins the names of their buckets.
  local limits, keyed, whole, of_tasks = {}, {}, nil, false
  while at <= #ARGV do
    local limit = { name = ARGV[at], most = tonumber(ARGV[at + 1]), points = tonumber(ARGV[at + 2]), windows = {} }
    limit.cap = limit.most or math.huge
    local count = tonumber(ARGV[at + 3])
    at = at + 4
    for w = 1, count do
      limit.windows[w] = windows().open(ARGV[at], ARGV[at + 1])
      -- Who takes more than there is, since the bound was lowered, runs alone.
      limit.cap = min(limit.cap, limit.windows[w].most)
      at = at + 2
    end
    limits[limit.name] = limit
    if limit.name == '*' then
      whole = limit
    elseif find(limit.name, '/', 1, true) then
      keyed[#keyed + 1] = limit
      limit.begin, limit.length = limit.name .. '/', #limit.name + 1
    else
      of_tasks = true
    end
  end
  -- A whole queue whose jobs all count alike is counted by what runs, so nothing is noted of it.
  local whole_is_running = whole and whole.most and whole.points == 1

  local function keyed_of(bucket)
    for k = 1, #keyed do
      local limit = keyed[k]
      if sub(bucket, 1, limit.length) == limit.begin then
        return limit
      end
    end
    return nil
  end

  local function limit_of(bucket)
    return limits[bucket] or keyed_of(bucket)
  end

  -- The buckets: the number of each, and by it name, limit, points that may be taken, in use as read, taken by this call.
  local numbers, names, of, room, in_use, taken = {}, {}, {}, {}, {}, {}
  -- Those of each limit that are not read yet.
  local unread, some_unread = {}, false

  local function number(bucket, limit)
    local b = #names + 1
    numbers[bucket], names[b], of[b], room[b], taken[b] = b, bucket, limit, 0, 0
    local list = unread[limit]
    if not list then
      list = {}
      unread[limit] = list
    end
    list[#list + 1], some_unread = b, true
    return b
  end

  local function find_room(b)
    local limit = of[b]
    local points = limit.most and limit.most - in_use[b] or math.huge
    for _, window in ipairs(limit.windows) do
      points = min(points, window.most - window.before[b] - window.here[b])
    end
    room[b] = points - taken[b]
  end

  local function read_of(limit, list)
    local buckets = {}
    for i = 1, #list do
      buckets[i] = names[list[i]]
    end
    if limit == whole and whole_is_running then
      in_use[list[1]] = running()
    elseif limit.most then
      local points = redis.call('HMGET', used, unpack(buckets))
      for i = 1, #list do
        in_use[list[i]] = points[i] and tonumber(points[i]) or 0
      end
    end
    for _, window in ipairs(limit.windows) do
      windows().look(window, list, buckets)
    end
    for i = 1, #list do
      find_room(list[i])
    end
  end

  -- Reads at once what is asked for since.
  local function read()
    if some_unread then
      for limit, list in pairs(unread) do
        read_of(limit, list)
      end
      unread, some_unread = {}, false
    end
  end

  -- A bucket by its name.
  local function know(bucket)
    local b = numbers[bucket] or number(bucket, limit_of(bucket))
    read()
    return b
  end

  -- When to look again whether there is room for so many points; nil when there is.
  local function blocked(b, points)
    if room[b] >= points then
      return nil
    end
    local limit, free = of[b], nil
    local wanted = points + taken[b]
    for _, window in ipairs(limit.windows) do
      if window.most - window.before[b] - window.here[b] < wanted then
        windows().reckon(window, b, names[b])
        if window.most - window.before[b] - window.here[b] < wanted then
          free = math.max(free or 0, window.frees[b] or clock + SOON)
        end
      end
    end
    find_room(b)
    if room[b] >= points then
      return nil
    end
    return free or clock + ANYWAY
  end

  local function take(b, points)
    room[b], taken[b] = room[b] - points, taken[b] + points
  end

  -- What jobs draw from: of the job at t from `firsts[t]` to before `firsts[t + 1]`, bucket and points in turn; and its task.
  local firsts, draws, tasks = {}, {}, {}

  -- Takes the records of all jobs that are looked at together apart. A record is the text that this daemon writes: inside a
  -- value the quotes would be escaped, and what an argument holds comes later.
  local function take_apart(texts, count)
    local n = 0
    for t = 1, count do
      local text = texts[t]
      firsts[t] = n + 1
      if text then
        local _, before = find(text, '"task":"', 1, true)
        local stop = find(text, '"', before + 1, true)
        local task, own = sub(text, before + 1, stop - 1), nil
        tasks[t] = task
        if sub(text, stop + 1, stop + 12) == ',"buckets":[' then
          local from, last = stop + 14, nil
          local close = find(text, ']', from, true)
          while from < close do
            last = find(text, '"', from, true)
            local bucket, points = sub(text, from, last - 1), 1
            if find(bucket, '=', 1, true) then
              bucket, points = match(bucket, '^(.*)=(%d+)$')
              points = tonumber(points)
            end
            local b = numbers[bucket]
            if not b then
              local limit = keyed_of(bucket)
              b = limit and number(bucket, limit)
            end
            if b and of[b].begin then
              local limit = of[b]
              draws[n + 1], draws[n + 2] = b, min(limit.points or points, limit.cap)
              n = n + 2
            else
              own = own or {}
              own[bucket] = points
            end
            from = last + 3
          end
        end
        local limit = of_tasks and limits[task]
        if limit then
          draws[n + 1] = numbers[task] or number(task, limit)
          draws[n + 2] = min(limit.points or own and own[task] or 1, limit.cap)
          n = n + 2
        end
        if whole then
          draws[n + 1] = numbers['*'] or number('*', whole)
          draws[n + 2] = min(whole.points or own and own['*'] or 1, whole.cap)
          n = n + 2
        end
      end
    end
    firsts[count + 1] = n + 1
    read()
  end

  -- What is to be noted of a draw, for the settle: nothing where nothing is to go back.
  local function drawn(b, points)
    if not of[b].most or of[b] == whole and whole_is_running then
      return nil
    end
    return points == 1 and names[b] or names[b] .. '=' .. string.format('%d', points)
  end

  -- Notes what has been taken: once for each limit, whatever the number of jobs.
  local function write()
    local started = {}
    for b = 1, #names do
      if taken[b] > 0 then
        local list = started[of[b]] or {}
        list[#list + 1], started[of[b]] = b, list
      end
    end
    for limit, list in pairs(started) do
      for _, window in ipairs(limit.windows) do
        windows().write(window, list, names, taken)
      end
      if limit.most and not (limit == whole and whole_is_running) then
        local now_used = {}
        for i = 1, #list do
          local b = list[i]
          now_used[2 * i - 1], now_used[2 * i] = names[b], string.format('%d', in_use[b] + taken[b])
        end
        redis.call('HSET', used, unpack(now_used))
      end
    end
  end

  return {
    whole = whole, limit_of = limit_of, know = know, room = room, blocked = blocked, take = take,
    names = names, firsts = firsts, draws = draws, tasks = tasks, take_apart = take_apart, drawn = drawn, write = write,
    may_hold = #keyed > 0 or of_tasks,
  }
end
