#!lua
-- publish: what the files say of this operation becomes what the scripts read. See store/policy.py.
--
-- KEYS   as in limits.lua
-- ARGV   version that may be renewed ("" replaces any), count of policy fields, then field, value, ...: first the digest, then
--        what guards it (`edition`, `term`), if anything; count of calendar entries, then start, limits, ...;
--        then quota periods: start, end, ...
--
-- A person's live override and hold stay. Returns {0, 1 when something changed, 2 when a guard is older than what was seen}
local at = 3 + 2 * tonumber(ARGV[2])
local kept = {override = true, override_until = true, override_author = true, override_reason = true,
  override_since = true, hold = true, hold_until = true, hold_author = true,
  hold_reason = true, hold_since = true, edition = true, term = true, published = true}
local seen = redis.call('HMGET', KEYS[1], 'digest', 'version', 'edition', 'term')
local before = seen[1]
-- Who was overtaken while its publication was under way must not put back what it knew.
local guards = {edition = seen[3], term = seen[4]}
for i = 5, math.min(7, at - 1), 2 do
  local latest = guards[ARGV[i]]
  if latest and tonumber(ARGV[i + 1]) < tonumber(latest) then return {0, 2} end
end
-- One that was about to be removed is wanted again.
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'published', string.format('%.0f', time[1] * 1000000 + time[2]))
for _, key in ipairs({2, 11, 12}) do
  if KEYS[key] then redis.call('PERSIST', KEYS[key]) end
end
-- A replica that only renews its calendars must not put back limits that others have replaced.
if before and before ~= ARGV[4] and ARGV[1] ~= '' and seen[2] ~= ARGV[1] then return {0, 0} end
if before == ARGV[4] then
  for i = 5, math.min(7, at - 1), 2 do
    if ARGV[i] == 'edition' or ARGV[i] == 'term' then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
  end
  return {0, 0}
end
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
