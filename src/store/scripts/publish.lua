-- Writes the leader's last turn, and the listing of registrations if it has changed.
-- (after fence.lua, order.lua and clock.lua) KEYS 3 state, 4 digest, 5 registrations.
-- ARGV 5 the digest, 6 the version of the listing that goes with it, 7 or else the listing.
local state = redis.call('HMGET', KEYS[3], 'digest', 'registrations')
local listing = state[2] or ''
if not ARGV[7] and listing ~= ARGV[6] then
  return {'STALE'}
end
local version = whole(after(state[1]))
if ARGV[7] then
  listing = version
  redis.call('SET', KEYS[5], ARGV[7])
  redis.call('HSET', KEYS[3], 'registrations', listing)
end
redis.call('SET', KEYS[4], ARGV[5])
redis.call('HSET', KEYS[3], 'digest', version)
return {'OK', version, listing}
