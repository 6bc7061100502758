#!lua flags=allow-oom
-- carry: what a replica started by itself while it was without us is counted here, once.
--
-- KEYS   as in limits.lua; KEYS[1] .. ':alone' is a hash that lives for an hour after the last carry:
--          n:<replica>     number of its last episode that was counted
--          peak:<replica>  the most calls that it had in flight
--          from, base      since when starts are compared with the limit, and how many had been counted by then
--          last, over      the last carry, us, and how far over the limit was told already
-- ARGV   now, replica, number of the episode, from when it was alone (us), started, wanted, peak in flight,
--        moment of its last look (us; 0 none), what `started` was then, then per tenant: name, started
--
-- 1. An episode is counted once: a reply that got lost is no reason to count again.
-- 2. What started then used the rate of then: it is charged from the beginning of the episode on, and debt is clamped.
-- 3. All replicas together are compared with what the limits would have allowed since the first of them was alone.
--    Episodes that touch are one.
-- Returns {0, now, how much further over the limit all went than was told before}
-- include limits
local now = clock(ARGV[1])
local op = load_operation(now)
if not op then return {3, now} end
local replica, number, from = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local started, wanted, peak = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local key = KEYS[1] .. ':alone'

-- 1.
if (tonumber(redis.call('HGET', key, 'n:' .. replica)) or -1) >= number then return {0, now, 0} end

-- 3. A new window, when nobody was alone for a lease.
local f = redis.call('HMGET', key, 'from', 'base', 'last', 'over')
local gone = {}
local since, base, last, told = tonumber(f[1]), tonumber(f[2]), tonumber(f[3]) or 0, tonumber(f[4]) or 0
if not since or from > last + LEASE or last > now then
  local looked, counted = tonumber(ARGV[8]), tonumber(ARGV[9])
  since, base, told = from, op.started, 0
  if looked > 0 and looked <= from and counted <= op.started then since, base = looked, counted end
  for _, field in ipairs(redis.call('HKEYS', key)) do
    if string.sub(field, 1, 5) == 'peak:' then gone[#gone + 1] = field end
  end
end

-- 2.
local function charge_from(bucket, cost)
  local limits = bucket.limits
  if limits.interval > 0 then
    local tat = max(bucket.tat, from) + cost * limits.interval
    bucket.tat = max(bucket.tat, min(tat, now + limits.tau + max(limits.tau, limits.debt)))
    bucket.changed = true
  end
end
charge_from(op, started)
op.started, op.wanted = op.started + started, op.wanted + wanted
if op.quota then op.quota_used = op.quota_used + started end
for i = 10, #ARGV, 2 do
  local own = tenant_of(op, ARGV[i], now)
  if own then charge_from(own, tonumber(ARGV[i + 1])) end
end
-- All has been read: from here on nothing can leave half a step.
redis.call('HSET', key, 'n:' .. replica, int(number))
if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
save(op, now)

-- 3.
local over = 0
if op.limits.interval > 0 then
  local allowed = floor((now - since) / op.limits.interval) + floor(op.limits.tau / op.limits.interval)
  over = max(0, op.started - base - allowed)
end
redis.call('HSET', key, 'peak:' .. replica, int(max(peak, tonumber(redis.call('HGET', key, 'peak:' .. replica)) or 0)))
if op.limits.concurrency then
  local together, all = 0, redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 5) == 'peak:' then together = together + tonumber(all[i + 1]) end
  end
  over = max(over, together - op.limits.concurrency)
end
redis.call('HSET', key, 'from', int(since), 'base', int(base), 'last', int(now), 'over', int(max(over, told)))
redis.call('PEXPIRE', key, 3600000)
return {0, now, int(max(0, over - told))}
