-- Takes a lease if it is free. One that is held is told of and left as it is, also when we
-- hold it: who does not know that he does must not keep it by asking. (after clock.lua)
-- KEYS 1 the lease, 2 its last term. ARGV 1 replica, 2 highest term seen, 3 ttl in ms,
-- 4 how long the term is remembered in ms, 5 channel, 6 hint.
local holder = redis.call('HMGET', KEYS[1], 'replica', 'term')
if holder[1] and holder[2] then
  -- One without an end is nobody's: no script leaves such a lease behind.
  local left = redis.call('PTTL', KEYS[1])
  if left >= 0 then
    return {'HELD', holder[1], holder[2], whole(left)}
  end
end
local seen = math.max(tonumber(redis.call('GET', KEYS[2]) or '0'), tonumber(ARGV[2]))
local term = whole(after(seen))
redis.call('SET', KEYS[2], term, 'PX', ARGV[4])
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'replica', ARGV[1], 'term', term)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PUBLISH', ARGV[5], ARGV[6])
return {'OURS', term}
