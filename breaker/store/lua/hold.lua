#!lua flags=allow-oom
-- hold: a person pauses, drains or resumes an operation.
--
-- KEYS   as in limits.lua and queue.lua
-- ARGV   now, word ("paused", "draining", "" resumes), until_us (0 until resumed), author, reason, wake channel prefix, operation
--
-- Returns {0, now}
-- include limits
local now = clock(ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 0 then return {3, now} end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], 'hold', 'hold_until', 'hold_author', 'hold_reason', 'hold_since')
else
  redis.call('HSET', KEYS[1], 'hold', ARGV[2], 'hold_until', ARGV[3], 'hold_author', ARGV[4], 'hold_reason', ARGV[5],
    'hold_since', int(now))
end
redis.call('PUBLISH', ARGV[6] .. 'jobs', '=work ' .. ARGV[7] .. ' -')
return {0, now}
