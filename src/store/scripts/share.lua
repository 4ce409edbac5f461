-- Writes a replica's share of the budget and answers with all that are fresh.
-- (after clock.lua) KEYS 1 shares. ARGV 1 replica, 2 share, 3 how long it says something in ms.
redis.call('HSET', KEYS[1], ARGV[1], whole(now + tonumber(ARGV[3])) .. ':' .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local shares = redis.call('HGETALL', KEYS[1])
local fresh = {}
for i = 1, #shares, 2 do
  local ends = string.match(shares[i + 1], '^(%d+):')
  if ends and tonumber(ends) <= now then
    redis.call('HDEL', KEYS[1], shares[i])
  elseif shares[i] ~= ARGV[1] then
    fresh[#fresh + 1] = shares[i]
    fresh[#fresh + 1] = shares[i + 1]
  end
end
return fresh
