#!lua
-- publish: what the files say of this operation becomes what the scripts read. See store/policy.py.
--
-- KEYS   as in limits.lua
-- ARGV   version that may be renewed ("" replaces any), count of policy fields, then field, value, ...; count of calendar entries, then start, limits, ...;
--        then quota periods: start, end, ...
--
-- A person's live override and hold stay. Returns {0, 1 when something changed}
local at = 3 + 2 * tonumber(ARGV[2])
local kept = {override = true, override_until = true, hold = true, hold_until = true, hold_author = true,
  hold_reason = true, hold_since = true}
local before = redis.call('HGET', KEYS[1], 'digest')
if before == ARGV[4] then return {0, 0} end
-- A replica that only renews its calendars must not put back limits that others have replaced.
if before and ARGV[1] ~= '' and redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then return {0, 0} end
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if not kept[field] then redis.call('HDEL', KEYS[1], field) end
end
for from = 3, at - 1, 1000 do
  redis.call('HSET', KEYS[1], unpack(ARGV, from, math.min(from + 999, at - 1)))
end
redis.call('DEL', KEYS[9], KEYS[10])
local entries = tonumber(ARGV[at])
for i = at + 1, at + 2 * entries, 2 do
  redis.call('ZADD', KEYS[9], ARGV[i], ARGV[i] .. ' ' .. ARGV[i + 1])
end
for i = at + 1 + 2 * entries, #ARGV, 2 do
  redis.call('ZADD', KEYS[10], ARGV[i], ARGV[i] .. ' ' .. ARGV[i + 1])
end
return {0, 1}
