#!lua flags=allow-oom
-- tally: a replica adds what it counted of an operation's calls, for alerts that look back. See store/tallies.py.
--
-- KEYS   as in limits.lua; KEYS[1] .. ':tally' is written
-- ARGV   now ("" asks the store), then name, count, ...; of `all` and `bad` longer times are kept as well
--
-- Fields are "m<minute> name", "f<five minutes> name", "h<hour> name". Returns {0, now}
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local key, minute = KEYS[1] .. ':tally', math.floor(now / 60000000)
local function field(unit, number, name) return string.format('%s%.0f %s', unit, number, name) end
local five, hour = math.floor(minute / 5), math.floor(minute / 60)

local is_new = redis.call('HGET', key, 'minute') ~= tostring(minute)
for at = 2, #ARGV, 2 do
  local name, count = ARGV[at], ARGV[at + 1]
  redis.call('HINCRBY', key, field('m', minute, name), count)
  if name == 'all' or name == 'bad' then
    redis.call('HINCRBY', key, field('f', five, name), count)
    redis.call('HINCRBY', key, field('h', hour, name), count)
  end
end
-- Once a minute what is too old goes. All of the key is read at most then: it holds some hundred fields.
if is_new then
  redis.call('HSET', key, 'minute', tostring(minute))
  redis.call('PEXPIRE', key, 345600000)
  local oldest = {m = minute - 10, f = five - 80, h = hour - 80}
  for _, name in ipairs(redis.call('HKEYS', key)) do
    local unit, number = string.match(name, '^(%a)(%d+) ')
    if unit and (tonumber(number) < oldest[unit] or tonumber(number) > oldest[unit] + 90) then redis.call('HDEL', key, name) end
  end
end
return {0, now}
