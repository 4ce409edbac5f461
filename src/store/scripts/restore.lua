-- Writes the operator state back unless the copy there is as new.
-- KEYS 1 state. ARGV 1 operator, 2 its revision.
if tonumber(redis.call('HGET', KEYS[1], 'operator_revision') or '0') < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'operator', ARGV[1], 'operator_revision', ARGV[2])
end
return {'OK'}
