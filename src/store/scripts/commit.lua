-- Writes what the leader decided. (after fence.lua, order.lua and clock.lua)
-- KEYS 3 state, 4 assignments, 5 assignments' versions, 6 intents, 7 outcomes,
-- 8 outcomes' times. ARGV 5 channel, 6 hint, 7 operator or '', 8 its revision,
-- 9 outcomes kept, 10 how long in ms, 11 number of assignments; then host and record of
-- each, then intent and outcome of each.
local at = 12
local assignments = tonumber(ARGV[11])
if assignments > 0 then
  local version = whole(after(redis.call('HGET', KEYS[3], 'assignments')))
  for _ = 1, assignments do
    redis.call('HSET', KEYS[4], ARGV[at], ARGV[at + 1])
    redis.call('ZADD', KEYS[5], version, ARGV[at])
    at = at + 2
  end
  redis.call('HSET', KEYS[3], 'assignments', version)
end
if ARGV[7] ~= '' then
  redis.call('HSET', KEYS[3], 'operator', ARGV[7], 'operator_revision', ARGV[8])
end
if ARGV[at] then
  redis.call('HSET', KEYS[3], 'intents', whole(after(redis.call('HGET', KEYS[3], 'intents'))))
  while ARGV[at] do
    redis.call('HDEL', KEYS[6], ARGV[at])
    redis.call('HSET', KEYS[7], ARGV[at], ARGV[at + 1])
    redis.call('ZADD', KEYS[8], now, ARGV[at])
    at = at + 2
  end
  local function forget(old)
    for _, intent in ipairs(old) do
      redis.call('HDEL', KEYS[7], intent)
      redis.call('ZREM', KEYS[8], intent)
    end
  end
  forget(redis.call('ZRANGEBYSCORE', KEYS[8], '-inf', whole(now - tonumber(ARGV[10]))))
  forget(redis.call('ZRANGE', KEYS[8], 0, -1 - tonumber(ARGV[9])))
  redis.call('PEXPIRE', KEYS[7], ARGV[10])
  redis.call('PEXPIRE', KEYS[8], ARGV[10])
end
if ARGV[6] ~= '' then
  redis.call('PUBLISH', ARGV[5], ARGV[6])
end
return {'OK'}
