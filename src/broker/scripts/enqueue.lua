-- Adds jobs. A job whose id exists already is left as it is.
--
-- KEYS  jobs, pending, scheduled
-- ARGV  for each job: id, record (JSON), set ('pending' | 'scheduled'), score (ms)
-- Returns an array: 1 for each job that was added, 0 for each that was there.
local jobs, sets = KEYS[1], { pending = KEYS[2], scheduled = KEYS[3] }
local added = {}
for i = 1, #ARGV, 4 do
  local new = redis.call('HSETNX', jobs, ARGV[i], ARGV[i + 1])
  if new == 1 then
    redis.call('ZADD', sets[ARGV[i + 2]], ARGV[i + 3], ARGV[i])
  end
  added[#added + 1] = new
end
return added
