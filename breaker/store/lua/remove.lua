#!lua flags=allow-oom
-- remove: an operation that no file names any more goes, unless something of it is still needed.
--
-- KEYS   as in limits.lua and queue.lua
-- ARGV   now, term of the steward, us that it must have been published before, wake channel prefix
--
-- Returns {0, now, what, jobs}: what is 0 when it was not there, 1 removed, 2 still needed, 3 the term is an old one
-- include limits
-- include queue
local KEPT_MS = 3456000000 -- 40 days: longer than a month's quota
local now, term = clock(ARGV[1]), tonumber(ARGV[2])
local op = load_operation(now)
if not op then return {0, now, 0, 0} end
local p = redis.call('HMGET', KEYS[1], 'term', 'published')
if term < (tonumber(p[1]) or 0) then return {0, now, 3, 0} end
redis.call('HSET', KEYS[1], 'term', int(term))
-- Nobody asks for its work any more, so that what has had its time is let go here.
local q = load_queue()
reap(q, now)
save_queue(q, ARGV[4])
local _, jobs = depths()
for _, set in ipairs({'l', 'x', 'u', 'c', 'p', 'r'}) do jobs = jobs + redis.call('ZCARD', Q .. ':' .. set) end
local calls = redis.call('ZCOUNT', KEYS[3], '(' .. int(now), '+inf') + redis.call('HLEN', KEYS[5])
local h = redis.call('HMGET', KEYS[1], 'hold', 'hold_until', 'override_until')
local by_hand = h[1] and (tonumber(h[2]) == 0 or tonumber(h[2]) > now) or (tonumber(h[3]) or 0) > now
local is_fresh = (tonumber(p[2]) or 0) > now - tonumber(ARGV[3])
if jobs + calls > 0 or by_hand or is_fresh then return {0, now, 2, jobs} end
redis.call('DEL', KEYS[1], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10])
-- Quota, ledger and circuit outlive it for a while: who removed it by mistake must not begin the month anew.
redis.call('PEXPIRE', KEYS[2], KEPT_MS)
redis.call('PEXPIRE', Q, KEPT_MS)
if KEYS[12] then redis.call('PEXPIRE', KEYS[12], KEPT_MS) end
return {0, now, 1, 0}
