#!lua flags=no-writes
-- tallied: what all replicas counted of an operation's calls. See store/tallies.py.
--
-- KEYS   as in limits.lua; KEYS[1] .. ':tally' is read
-- ARGV   now ("" asks the store), count of names, names, then pairs: unit (m, f, h) and how many whole ones of it,
--        besides the one that has begun
--
-- Returns {0, now, per name its count in the last five minutes, then per pair {all, bad}}
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local key, minute = KEYS[1] .. ':tally', math.floor(now / 60000000)
local current = {m = minute, f = math.floor(minute / 5), h = math.floor(minute / 60)}
local function sum(unit, back, name)
  local fields, total = {}, 0
  for number = current[unit] - back, current[unit] do fields[#fields + 1] = string.format('%s%.0f %s', unit, number, name) end
  for _, count in ipairs(redis.call('HMGET', key, unpack(fields))) do total = total + (tonumber(count) or 0) end
  return total
end
local out, names = {0, now}, tonumber(ARGV[2])
for at = 3, 2 + names do out[#out + 1] = sum('m', 5, ARGV[at]) end
for at = 3 + names, #ARGV, 2 do
  local back = tonumber(ARGV[at + 1])
  out[#out + 1] = {sum(ARGV[at], back, 'all'), sum(ARGV[at], back, 'bad')}
end
return out
