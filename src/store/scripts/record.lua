-- Records an intent, once. (after clock.lua)
-- KEYS 1 state, 2 intents, 3 outcomes. ARGV 1 id, 2 intent, 3 how many may wait,
-- 4 channel, 5 hint.
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 or redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 then
  return {'OK'}
end
if redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[3]) then
  return {'FULL'}
end
-- The version is also its place in the queue.
local version = whole(after(redis.call('HGET', KEYS[1], 'intents')))
redis.call('HSET', KEYS[2], ARGV[1], version .. ':' .. ARGV[2])
redis.call('HSET', KEYS[1], 'intents', version)
redis.call('PUBLISH', ARGV[4], ARGV[5])
return {'OK'}
