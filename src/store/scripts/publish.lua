-- Writes the leader's last turn. (after fence.lua, order.lua and clock.lua)
-- KEYS 3 state, 4 digest. ARGV 5 the digest.
local version = whole(after(redis.call('HGET', KEYS[3], 'digest')))
redis.call('SET', KEYS[4], ARGV[5])
redis.call('HSET', KEYS[3], 'digest', version)
return {'OK'}
