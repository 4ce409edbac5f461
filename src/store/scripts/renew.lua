-- Prolongs our lease of this term.
-- KEYS 1 the lease. ARGV 1 replica, 2 term, 3 ttl in ms.
local holder = redis.call('HMGET', KEYS[1], 'replica', 'term')
if not holder[1] or not holder[2] then
  return {'ABSENT'}
end
if holder[1] == ARGV[1] and holder[2] == ARGV[2] then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return {'OURS', holder[2]}
end
return {'HELD', holder[1], holder[2], tostring(math.max(redis.call('PTTL', KEYS[1]), 0))}
