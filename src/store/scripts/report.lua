-- Replaces an agent's report of its host. (after fence.lua, order.lua and clock.lua)
-- KEYS 3 state, 4 hosts, 5 hosts' versions. ARGV 5 host, 6 record, 7 channel, 8 hint.
local version = whole(after(redis.call('HGET', KEYS[3], 'hosts')))
redis.call('HSET', KEYS[4], ARGV[5], ARGV[6])
redis.call('ZADD', KEYS[5], version, ARGV[5])
redis.call('HSET', KEYS[3], 'hosts', version)
redis.call('PUBLISH', ARGV[7], ARGV[8])
return {'OK'}
