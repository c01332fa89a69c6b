-- Writes down what a running job says of itself, as long as the attempt that says it is the active one.
--
-- KEYS  active, notes
-- ARGV  id, holder (`token node started`, as in active), what it has said so far (JSON)
-- Returns 1 when it is written, 0 when somebody else has the job.
if not drawn_by(redis.call('HGET', KEYS[1], ARGV[1]), ARGV[2]) then
  return 0
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1
