#!lua flags=allow-oom
-- set: a person sets or ends the limits of an operation. Mirrors core/override.py.
--
-- KEYS   as in limits.lua
-- ARGV   now, until_us (0 ends them), then "" where nothing is said: limit, period, interval, burst, concurrency;
--        the least burst, author, reason, wake channel prefix, operation
--
-- Returns {0, now, what, stated limits before, and after} where what is 0 done, 1 a burst without a rate,
--          2 further back than can be counted, 3 there was nothing to end
-- include limits
local TAU_MAX = 1e15
local now, until_us = clock(ARGV[1]), ARGV[2]
local op = load_operation(now)
if not op then return {3, now} end
-- 1. What is not said stays as it is stated now.
local before = op.text

local function wake()
  redis.call('PUBLISH', ARGV[11] .. 'jobs', '=limits ' .. ARGV[12] .. ' ' .. until_us)
  redis.call('PUBLISH', ARGV[11] .. 'jobs', '=work ' .. ARGV[12] .. ' -')
end

if until_us == '0' then
  local is_live = (tonumber(redis.call('HGET', KEYS[1], 'override_until') or 0)) > now
  redis.call('HDEL', KEYS[1], 'override', 'override_until', 'override_author', 'override_reason', 'override_since')
  if not is_live then return {0, now, 3, before, before} end
  wake()
  return {0, now, 0, before, load_operation(now).text}
end

local limit, period, interval, burst, concurrency = string.match(before, '^(%S+) (%S+) (%S+) (%S+) (%S+)$')
if ARGV[3] ~= '' then limit, period, interval = ARGV[3], ARGV[4], ARGV[5] end
if ARGV[7] ~= '' then concurrency = ARGV[7] end
-- 2. A burst belongs to a rate.
if ARGV[6] ~= '' then
  if limit == '-' then return {0, now, 1, before, before} end
  burst = ARGV[6]
elseif limit ~= '-' then
  burst = int(max(tonumber(burst) or 1, tonumber(ARGV[8])))
end
-- 3. What the store can count.
if limit ~= '-' and tonumber(interval) * tonumber(burst) > TAU_MAX then return {0, now, 2, before, before} end
local after = table.concat({limit, period, interval, burst, concurrency}, ' ')
redis.call('HSET', KEYS[1], 'override', after, 'override_until', until_us, 'override_author', ARGV[9],
  'override_reason', ARGV[10], 'override_since', int(now))
-- 4. Beyond what it has adapted to it adapts anew.
local adaptive = op.circuit.adaptive
if ARGV[7] ~= '' and adaptive > 0 and tonumber(ARGV[7]) > adaptive then redis.call('HSET', KEYS[12], 'adaptive', 0) end
wake()
return {0, now, 0, before, after}
