-- Writes what the leader decided. (after fence.lua and clock.lua)
-- KEYS 3 state, 4 assignments, 5 assignments' versions, 6 intents, 7 outcomes,
-- 8 outcomes' times. ARGV 3 channel, 4 hint, 5 operator or '', 6 its revision,
-- 7 outcomes kept, 8 how long in ms, 9 number of assignments; then host and record of
-- each, then intent and outcome of each.
local at = 10
local assignments = tonumber(ARGV[9])
if assignments > 0 then
  local version = whole(after(redis.call('HGET', KEYS[3], 'assignments')))
  for _ = 1, assignments do
    redis.call('HSET', KEYS[4], ARGV[at], ARGV[at + 1])
    redis.call('ZADD', KEYS[5], version, ARGV[at])
    at = at + 2
  end
  redis.call('HSET', KEYS[3], 'assignments', version)
end
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[3], 'operator', ARGV[5], 'operator_revision', ARGV[6])
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
  forget(redis.call('ZRANGEBYSCORE', KEYS[8], '-inf', whole(now - tonumber(ARGV[8]))))
  forget(redis.call('ZRANGE', KEYS[8], 0, -1 - tonumber(ARGV[7])))
  redis.call('PEXPIRE', KEYS[7], ARGV[8])
  redis.call('PEXPIRE', KEYS[8], ARGV[8])
end
if ARGV[4] ~= '' then
  redis.call('PUBLISH', ARGV[3], ARGV[4])
end
return {'OK'}
