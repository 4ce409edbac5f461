-- Gives our lease of this term up and tells those who wait for it.
-- KEYS 1 the lease. ARGV 1 replica, 2 term, 3 channel, 4 hint.
local holder = redis.call('HMGET', KEYS[1], 'replica', 'term')
if holder[1] == ARGV[1] and holder[2] == ARGV[2] then
  redis.call('DEL', KEYS[1])
  redis.call('PUBLISH', ARGV[3], ARGV[4])
end
return {'OK'}
