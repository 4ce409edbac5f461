-- The first part of every script that needs the store's time. Numbers of this size need
-- a format of their own: Lua writes them with an exponent.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function whole(number)
  return string.format('%.0f', number)
end
-- The version after `last`. At least the time, so that no version is used again after the
-- store has lost its newest part.
local function after(last)
  return math.max(tonumber(last or '0') + 1, now)
end
