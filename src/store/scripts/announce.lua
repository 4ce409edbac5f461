-- Tells the others of a replica, and forgets what has been silent for long. (after clock.lua)
-- KEYS 1 replicas, 2 state, 3 hosts, 4 hosts' versions, 5 assignments, 6 assignments'
-- versions. ARGV 1 replica, 2 record, 3 ttl in ms, 4 how long a silent host is kept in ms.
local replicas = redis.call('HGETALL', KEYS[1])
for i = 1, #replicas, 2 do
  local ends = string.match(replicas[i + 1], '^%d+:(%d+):')
  if ends and tonumber(ends) <= now then
    redis.call('HDEL', KEYS[1], replicas[i])
  end
end
redis.call('HSET', KEYS[1], ARGV[1],
  whole(now) .. ':' .. whole(now + tonumber(ARGV[3])) .. ':' .. ARGV[2])
local limit = now - tonumber(ARGV[4])
local silent = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', whole(limit), 'LIMIT', 0, 100)
for _, host in ipairs(silent) do
  redis.call('HDEL', KEYS[3], host)
  redis.call('ZREM', KEYS[4], host)
end
-- What was assigned to a host goes after the host, whenever it was written last.
local forgotten = #silent
for _, host in ipairs(redis.call('ZRANGEBYSCORE', KEYS[6], '-inf', whole(limit))) do
  if not redis.call('ZSCORE', KEYS[4], host) then
    redis.call('HDEL', KEYS[5], host)
    redis.call('ZREM', KEYS[6], host)
    forgotten = forgotten + 1
  end
end
if forgotten > 0 then
  for _, part in ipairs({'hosts', 'assignments'}) do
    redis.call('HSET', KEYS[2], part, whole(after(redis.call('HGET', KEYS[2], part))))
  end
end
return {'OK'}
