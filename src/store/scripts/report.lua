-- Replaces an agent's report of its host. (after fence.lua and clock.lua)
-- KEYS 3 state, 4 hosts, 5 hosts' versions. ARGV 3 host, 4 record, 5 channel, 6 hint.
local version = whole(after(redis.call('HGET', KEYS[3], 'hosts')))
redis.call('HSET', KEYS[4], ARGV[3], ARGV[4])
redis.call('ZADD', KEYS[5], version, ARGV[3])
redis.call('HSET', KEYS[3], 'hosts', version)
redis.call('PUBLISH', ARGV[5], ARGV[6])
return {'OK'}
