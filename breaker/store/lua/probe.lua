#!lua
-- probe: does this store take writes? It asks for memory, so that a store that has none left is down.
--
-- KEYS   as in limits.lua; KEYS[1] .. ':probe' is written, and is gone after a minute
-- ARGV   now ("" asks the store)
--
-- Returns {0, now}
local time = redis.call('TIME')
local now = tonumber(ARGV[1]) or time[1] * 1000000 + time[2]
redis.call('SET', KEYS[1] .. ':probe', string.format('%.0f', now), 'PX', 60000)
return {0, now}
