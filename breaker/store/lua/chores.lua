#!lua flags=allow-oom
-- chores: callbacks to deliver and outcomes to ask for; leased for a while, so that a dead replica's come back.
--
-- KEYS   as in limits.lua and queue.lua
-- ARGV   now, set (c callbacks, p probes), how many, lease_us, then what became of others: id, delay_us (-1 done)
--
-- Returns {0, now, us until the next is due (-1 none)}, then per chore {id, tries, text, last answer}
-- include limits
-- include queue
local now, set, lease_us = clock(ARGV[1]), Q .. ':' .. ARGV[2], tonumber(ARGV[4])
local tries = set .. ':tries'
for at = 5, #ARGV, 2 do
  if ARGV[at + 1] == '-1' then
    call('ZREM', set, ARGV[at])
    call('HDEL', tries, ARGV[at])
  else
    call('ZADD', set, 'XX', int(now + ARGV[at + 1]), ARGV[at])
  end
end
local out = {0, now, -1}
for _, id in ipairs(call('ZRANGEBYSCORE', set, '-inf', int(now), 'LIMIT', 0, tonumber(ARGV[3]))) do
  local text = call('GET', Q .. ':j:' .. id)
  if text then
    call('ZADD', set, int(now + lease_us), id)
    out[#out + 1], out[#out + 2] = id, call('HINCRBY', tries, id, 1)
    out[#out + 1], out[#out + 2] = text, call('GET', Q .. ':o:' .. id) or ''
  else
    call('ZREM', set, id)
    call('HDEL', tries, id)
  end
end
local first = call('ZRANGE', set, 0, 0, 'WITHSCORES')[2]
if first then out[3] = max(0, tonumber(first) - now) end
return out
