-- Keeps small cached facts for the next leader. (after fence.lua)
-- KEYS 3 what is put by. ARGV 3 how long in ms; then SET or DEL, name and value of each.
for i = 4, #ARGV, 3 do
  if ARGV[i] == 'SET' then
    redis.call('HSET', KEYS[3], ARGV[i + 1], ARGV[i + 2])
  else
    redis.call('HDEL', KEYS[3], ARGV[i + 1])
  end
end
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return {'OK'}
