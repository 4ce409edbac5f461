-- Everything shared, at one instant, as far as the caller does not know it yet.
-- (after clock.lua) KEYS 1 state, 2 the leader's lease, 3 replicas, 4 hosts, 5 hosts'
-- versions, 6 assignments, 7 assignments' versions, 8 intents, 9 digest, 10 registrations.
-- ARGV 1 an incarnation in case there is none; what the caller knows: 2 incarnation,
-- 3 hosts, 4 assignments, 5 intents, 6 digest, 7 registrations.
local state = redis.call('HMGET', KEYS[1],
  'incarnation', 'hosts', 'assignments', 'intents', 'digest', 'operator', 'registrations')
if not state[1] then
  redis.call('HSET', KEYS[1], 'incarnation', ARGV[1])
  state[1] = ARGV[1]
end
local same = state[1] == ARGV[2]

-- What has a version above the known one: how many there are, then each with its record.
local function moved(version, known, records, versions)
  version = version or '0'
  if same and version == known then
    return false
  end
  local from = '-inf'
  if same and tonumber(known) < tonumber(version) then
    from = '(' .. known
  end
  local answer = {redis.call('ZCARD', KEYS[versions])}
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[versions], from, '+inf')) do
    answer[#answer + 1] = name
    answer[#answer + 1] = redis.call('HGET', KEYS[records], name)
  end
  return answer
end

local intents = false
if not same or (state[4] or '0') ~= ARGV[5] then
  intents = redis.call('HGETALL', KEYS[8])
end
local digest = false
if not same or (state[5] or '0') ~= ARGV[6] then
  digest = redis.call('GET', KEYS[9])
end
local registrations = false
if not same or (state[7] or '') ~= ARGV[7] then
  registrations = redis.call('GET', KEYS[10])
end
return {
  whole(now),
  {state[1], state[2] or '0', state[3] or '0', state[4] or '0', state[5] or '0', state[7] or ''},
  redis.call('HMGET', KEYS[2], 'replica', 'term'),
  state[6],
  redis.call('HGETALL', KEYS[3]),
  moved(state[2], ARGV[3], 4, 5),
  moved(state[3], ARGV[4], 6, 7),
  intents,
  digest,
  registrations,
}
