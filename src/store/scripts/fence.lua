-- The first part of every fenced script: only the holder of this very term may write.
-- KEYS 1 the lease, 2 its last term. ARGV 1 replica, 2 term.
local holder = redis.call('HMGET', KEYS[1], 'replica', 'term')
if holder[1] ~= ARGV[1] or holder[2] ~= ARGV[2] then
  return {'FENCED', holder[2] or redis.call('GET', KEYS[2]) or '0'}
end
