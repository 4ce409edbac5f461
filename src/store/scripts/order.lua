-- The second part of scripts whose writes replace a whole record: those of one holder take
-- effect in the order they were sent. One that its sender has given up on may still be on
-- its way, and must not undo a later one. One that is sent again, because its connection was
-- lost with the answer, does the same again.
-- KEYS 1 the lease. ARGV 3 what kind of write, 4 its number.
if tonumber(redis.call('HGET', KEYS[1], ARGV[3]) or '0') > tonumber(ARGV[4]) then
  return {'LATE'}
end
redis.call('HSET', KEYS[1], ARGV[3], ARGV[4])
