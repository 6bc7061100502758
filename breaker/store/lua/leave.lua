#!lua flags=allow-oom
-- leave: a replica stops, and is gone at once.
--
-- KEYS   as in beat.lua
-- ARGV   replica
--
-- Returns {0}
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
-- The term stays: whoever follows has a higher one.
if redis.call('HGET', KEYS[4], 'replica') == ARGV[1] then redis.call('HSET', KEYS[4], 'replica', '', 'until', 0) end
return {0}
