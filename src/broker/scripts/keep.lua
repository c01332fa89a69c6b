-- Stores what an attempt has finished while it goes on, so that the next one goes on behind it if this node dies.
-- An attempt that is not the active one any more stores nothing: its job is somebody else's.
--
-- KEYS  active, history
-- ARGV  id, holder (`token node started`, as in active), history (JSON)
-- Returns 1 stored, 0 refused.
-- A delete is allowed even when Redis is full, and a script that has begun with one may go on.
redis.call('HDEL', KEYS[1], '')
if not drawn_by(redis.call('HGET', KEYS[1], ARGV[1]), ARGV[2]) then
  return 0
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1
