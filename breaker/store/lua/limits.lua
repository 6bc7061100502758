-- limits: what the verbs share. Mirrors core/limits.py (policy, buckets, tickets).
-- The loader puts this text in place of the line `-- include limits`.
--
-- KEYS of every verb (all carry the operation's hash tag):
--   1 policy   hash  limits as text, see store/policy.py
--   2 rate     hash  tat, interval, promise, slots_promise, opening_promise, service, started, wanted,
--                    quota_start, quota_used
--   3 slots    zset  lease id -> expiry, us; in flight = the members that have not expired
--   4 waiting  zset  waiter id -> arrival, us; those that only wait for the operation's own limits
--   5 calls    hash  waiter id -> "tenant cost give_up policy arrival"
--   6 parked   zset  tenant -> when its first waiter may be tried again, us (PLAYING: it stands in `waiting`)
--   7 tombs    zset  withdrawn id -> until when it must not be admitted, us
--   8 seen     zset  replica -> last sign of life, us; only of replicas with waiting calls
--   9 calendar zset  "start limits" scored by start, us
--  10 periods  zset  "start end" of quota periods scored by start, us
--  12 circuit  hash  see circuit.lua (11 is the queue, see queue.lua)
-- Keys of a tenant are KEYS[2], KEYS[3], KEYS[6] with ":<tenant>" behind.
local RATE, SLOTS, QUOTA, TENANT_RATE, TENANT_SLOTS, CLOSED, TURN = 1, 2, 3, 4, 5, 6, 7
local DRAINING, PAUSED = 12, 13
local PLAYING = 9e15
local LEASE = 10000000
local PARK_MAX = 60000000
local SERVICE_UNKNOWN = 100000
local floor, max, min = math.floor, math.max, math.min

local function int(number) return string.format('%.0f', number) end

-- include circuit

local function is_own(policy) return policy == TENANT_RATE or policy == TENANT_SLOTS or policy == TENANT_PAUSE end

local function clock(given)
  if given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Nothing is granted after not_after, nor while the replica's idea of our clock is off by 2 s.
local function off_time(now, estimate, not_after)
  if estimate == '' then return nil end
  if math.abs(now - tonumber(estimate)) > 2000000 then return 2 end
  if now > tonumber(not_after) then return 1 end
end

-- "limit period interval burst concurrency", "-" where nothing is stated.
local function limits_of(text)
  local limit, period, interval, burst, concurrency = string.match(text, '^(%S+) (%S+) (%S+) (%S+) (%S+)$')
  local limits = {limit = tonumber(limit), interval = tonumber(interval) or 0, concurrency = tonumber(concurrency),
    period = tonumber(period), burst = tonumber(burst) or 0, debt = 0}
  limits.tau = limits.interval * limits.burst
  limits.whole_interval, limits.whole_tau = limits.interval, limits.tau
  limits.closed = limits.limit == 0 or limits.concurrency == 0
  return limits
end

-- One rate clock and one set of slots, of the operation or of a tenant, as they stand now.
local function bucket_of(limits, suffix, now)
  local bucket = {limits = limits, rate_key = KEYS[2] .. suffix, slots_key = KEYS[3] .. suffix, used = 0}
  local f = redis.call('HMGET', bucket.rate_key, 'tat', 'interval', 'promise', 'slots_promise', 'opening_promise', 'pause')
  local tat, interval = tonumber(f[1]) or 0, tonumber(f[2]) or 0
  bucket.promise, bucket.slots_promise = tonumber(f[3]) or 0, tonumber(f[4]) or 0
  bucket.opening_promise, bucket.pause = tonumber(f[5]) or 0, tonumber(f[6]) or 0
  bucket.tat, bucket.interval = tat, interval
  if limits.interval > 0 then
    -- Debt was measured in the interval of its time: rescale it when the limit has changed.
    if interval > 0 and interval ~= limits.interval and tat > now then
      tat = now + floor((tat - now) * (limits.interval / interval))
    end
    tat = min(tat, now + limits.tau + max(limits.tau, limits.debt))
    bucket.changed = tat ~= bucket.tat or (interval > 0 and interval ~= limits.interval)
    bucket.tat, bucket.interval = tat, limits.interval
    if tat <= now and bucket.promise > 0 then bucket.promise, bucket.changed = 0, true end
  end
  if limits.concurrency then
    -- A lease that ends later than any can was written before the clock went back: it does not count.
    bucket.used = redis.call('ZCOUNT', bucket.slots_key, '(' .. int(now), int(now + LEASE))
    if bucket.used == 0 and bucket.slots_promise > 0 then bucket.slots_promise, bucket.changed = 0, true end
  end
  return bucket
end

-- The operation: which limits hold now (override, else calendar, else file), and its counters.
local function load_operation(now)
  local p = redis.call('HMGET', KEYS[1], 'file', 'tenant', 'quota', 'mode', 'overflow', 'waiting_max',
    'retry_max_us', 'calendar', 'override', 'override_until', 'exceptions', 'hold', 'hold_until', 'debt', 'retired',
    'circuit', 'pause_max', 'pauses_tenants', 'adaptive_min')
  if not p[1] then return nil end
  local text, until_us = p[1], nil
  if p[8] == '1' then
    local entry = redis.call('ZREVRANGEBYSCORE', KEYS[9], int(now), '-inf', 'LIMIT', 0, 1)[1]
    if entry then text = string.match(entry, '^%S+ (.*)$') end
    local following = redis.call('ZRANGEBYSCORE', KEYS[9], '(' .. int(now), '+inf', 'LIMIT', 0, 1)[1]
    until_us = following and tonumber(string.match(following, '^%S+'))
  end
  if p[9] and tonumber(p[10]) > now then text, until_us = p[9], tonumber(p[10]) end
  local limits, circuit = limits_of(text), load_circuit(p[16])
  limits.stated_concurrency = limits.concurrency
  make_effective(limits, circuit, now)
  limits.debt = limits.interval * (tonumber(p[14]) or 0)
  local op = bucket_of(limits, '', now)
  op.circuit, op.pause_max, op.pauses_tenants = circuit, tonumber(p[17]) or 0, p[18] == '1'
  op.adaptive_min = tonumber(p[19]) or 0
  op.hold_until = tonumber(p[13]) or 0
  if p[12] and (op.hold_until == 0 or op.hold_until > now) then op.hold = p[12] end
  op.retired = p[15] == '1'
  if not op.hold and op.retired then op.hold, op.hold_until = 'draining', 0 end
  op.text, op.until_us, op.tenant_text, op.exceptions = text, until_us, p[2], p[11] == '1'
  op.shadow, op.alert = p[4] == 'shadow', p[5] == 'alert'
  op.waiting_max, op.retry_max, op.tenants = tonumber(p[6]), tonumber(p[7]), {}
  local f = redis.call('HMGET', KEYS[2], 'service', 'started', 'wanted', 'quota_start', 'quota_used')
  op.service, op.started, op.wanted = tonumber(f[1]) or 0, tonumber(f[2]) or 0, tonumber(f[3]) or 0
  if p[3] then
    local period = redis.call('ZREVRANGEBYSCORE', KEYS[10], int(now), '-inf', 'LIMIT', 0, 1)[1]
    local first, last = string.match(period or '0 0', '^(%S+) (%S+)$')
    op.quota, op.quota_start, op.quota_end = tonumber(p[3]), tonumber(first), tonumber(last)
    op.quota_used = tonumber(f[4]) == op.quota_start and tonumber(f[5]) or 0
    op.changed = op.changed or (tonumber(f[4]) or 0) ~= op.quota_start
  end
  return op
end

-- The tenant's bucket, or nil when it has no limits of its own.
local function tenant_of(op, tenant, now)
  local known = op.tenants[tenant]
  if known ~= nil then return known end
  local text = op.exceptions and redis.call('HGET', KEYS[1], 'tenant:' .. tenant) or op.tenant_text
    or op.pauses_tenants and '- - - - -'
  known = text and bucket_of(limits_of(text), ':' .. tenant, now) or false
  op.tenants[tenant] = known
  return known
end

-- How long until this bucket could take the call: policy, us; nothing when it could now.
local function bucket_blocks(bucket, cost, now, rate_policy, slots_policy)
  local limits = bucket.limits
  if limits.interval > 0 then
    local wait = max(now, bucket.tat) + cost * limits.interval - limits.tau - now
    if wait > 0 then return rate_policy, wait end
  end
  if limits.concurrency and bucket.used >= limits.concurrency then return slots_policy, 0 end
end

-- A slot comes back once per mean service time and slot.
local function slot_step(op, bucket)
  return max(1, floor((op.service > 0 and op.service or SERVICE_UNKNOWN) / max(1, bucket.limits.concurrency)))
end

-- Every limit is evaluated before anything is written: the policy that has no room and the wait.
local function blocks(op, own, cost, now)
  if own then
    local pause, left = tenant_pause(op, own, now)
    if pause then return pause, left end
    if own.limits.closed then return TENANT_RATE, op.retry_max end
    local policy, wait = bucket_blocks(own, cost, now, TENANT_RATE, TENANT_SLOTS)
    if policy then return policy, wait end
  end
  if op.limits.closed then return CLOSED, (op.until_us or now + op.retry_max) - now end
  if op.quota and op.quota_used + cost > op.quota then 
    return QUOTA, op.quota_end > 0 and op.quota_end - now or op.retry_max
  end
  return bucket_blocks(op, cost, now, RATE, SLOTS)
end

-- The policy under which this cost can never fit, or nothing.
local function never_fits(op, own, cost)
  if own and own.limits.interval > 0 and cost * own.limits.interval > own.limits.tau then return TENANT_RATE end
  if op.limits.interval > 0 and cost * op.limits.whole_interval > op.limits.whole_tau then return RATE end
  if op.quota and op.quota > 0 and cost > op.quota then return QUOTA end
end

-- Spend: also beyond the limit (overflow alert), where debt is clamped at one burst.
local function charge_bucket(bucket, cost, now)
  local limits = bucket.limits
  if limits.interval > 0 then
    bucket.tat = min(max(now, bucket.tat) + cost * limits.interval, now + limits.tau + max(limits.tau, limits.debt))
  end
  bucket.used, bucket.changed = bucket.used + 1, true
end

local function charge(op, own, cost, now)
  charge_bucket(op, cost, now)
  op.started = op.started + cost
  if op.quota then op.quota_used = op.quota_used + cost end
  if own then charge_bucket(own, cost, now) end
end

-- A retry ticket: each refusal moves the limit's promise, so that callers come back one by one.
local function ticket(op, own, policy, cost, wait, now)
  local bucket = is_own(policy) and own or op
  local clock_name, step = 'promise', cost * bucket.limits.interval
  if policy == SLOTS or policy == TENANT_SLOTS or (policy == TURN and step == 0) then
    clock_name, step = 'slots_promise', bucket.limits.concurrency and slot_step(op, bucket) or SERVICE_UNKNOWN
    wait = max(wait, step)
  elseif policy == CLOSED or policy == QUOTA or policy >= CIRCUIT then
    clock_name, step = 'opening_promise', SERVICE_UNKNOWN
  end
  local at = max(bucket[clock_name], now + wait)
  bucket[clock_name] = min(at + step, now + max(wait, op.retry_max))
  bucket.changed = true
  return min(at - now, op.retry_max)
end

local function save_bucket(bucket, now, more)
  local fields = {'tat', int(bucket.tat), 'interval', int(bucket.interval),
    'promise', int(bucket.promise), 'slots_promise', int(bucket.slots_promise),
    'opening_promise', int(bucket.opening_promise)}
  for _, value in ipairs(more or {}) do fields[#fields + 1] = value end
  redis.call('HSET', bucket.rate_key, unpack(fields))
  if not more then
    -- An idle tenant costs nothing: its clocks go when they mean nothing any more.
    local last = max(bucket.tat, bucket.promise, bucket.slots_promise, bucket.pause)
    redis.call('PEXPIRE', bucket.rate_key, int(max(0, floor((last - now) / 1000)) + 60000))
  end
end

local function save(op, now)
  local more = {'started', int(op.started), 'wanted', int(op.wanted), 'service', int(op.service)}
  if op.quota then
    more[7], more[8], more[9], more[10] = 'quota_start', int(op.quota_start), 'quota_used', int(op.quota_used)
  end
  save_bucket(op, now, more)
  for _, own in pairs(op.tenants) do
    if own and own.changed then save_bucket(own, now) end
  end
end

-- The room of whatever is tightest: the tenant's rate, else the operation's, else the slots.
local function room_of(op, own, now)
  local bucket, room = op, RATE
  if own and own.limits.interval > 0 then bucket, room = own, TENANT_RATE end
  local limits = bucket.limits
  if limits.interval > 0 then
    local debt = max(0, bucket.tat - now)
    local remaining = max(0, floor((limits.tau - debt) / limits.interval))
    return room, remaining, remaining > 0 and debt or max(0, debt + limits.interval - limits.tau)
  elseif limits.concurrency then
    return SLOTS, max(0, limits.concurrency - bucket.used), 0
  end
  return 0, 0, 0
end

-- It never started: slot and quota go back, and of the rate what time has not given back since.
local function refund(op, own, id, cost, now)
  local expiry = tonumber(redis.call('ZSCORE', KEYS[3], id) or 0)
  if expiry <= now then return false end
  local since = now - (expiry - LEASE)
  redis.call('ZREM', KEYS[3], id)
  redis.call('ZREM', PROBES, id)
  op.tat = op.tat - max(0, cost * op.limits.interval - since)
  if own then
    redis.call('ZREM', own.slots_key, id)
    own.tat, own.changed = own.tat - max(0, cost * own.limits.interval - since), true
  end
  op.started = max(0, op.started - cost)
  if op.quota then op.quota_used = max(0, op.quota_used - cost) end
  return true
end

-- Leases that ran out are not counted; this only frees their memory, a bounded number a call.
local function purge(key, now)
  local gone = redis.call('ZRANGEBYSCORE', key, '-inf', int(now), 'LIMIT', 0, 64)
  if #gone > 0 then redis.call('ZREM', key, unpack(gone)) end
end

-- Leases to write, gathered over a batch: ZADD once per set.
local function lease(leases, key, id, expiry)
  local list = leases[key] or {}
  list[#list + 1], list[#list + 2] = int(expiry), id
  leases[key] = list
end

local function save_leases(leases, lease_us, now)
  for key, list in pairs(leases) do
    purge(key, now)
    redis.call('ZADD', key, unpack(list))
    redis.call('PEXPIRE', key, int(floor(lease_us / 1000) + 60000))
  end
end

-- Why nothing of the operation starts now, or 0: a person paused it, its circuit, its downstream asked for time.
local function held_for(op, now)
  return op.hold == 'paused' and PAUSED or (bars(op, nil, now)) or 0
end

-- A call starts: it spends, and takes its slots where they are limited. While a circuit is half-open it is a probe, and
-- holds a lease in any case; so does what waited. Returns 0 not leased, 1 leased, 2 as a probe.
local function start(op, own, id, cost, now, leases, lease_us, waited)
  charge(op, own, cost, now)
  local is_probe = is_probing(op.circuit, now)
  if is_probe then probe(op.circuit, id, now, lease_us) end
  if not (is_probe or waited or op.limits.concurrency or (own and own.limits.concurrency)) then return 0 end
  lease(leases, KEYS[3], id, now + lease_us)
  if own then lease(leases, own.slots_key, id, now + lease_us) end
  return is_probe and 2 or 1
end

-- "tenant cost give_up policy arrival" of a waiting call, or nothing.
local function waiter_of(id)
  local text = redis.call('HGET', KEYS[5], id)
  if not text then return nil end
  local tenant, cost, give_up, policy, arrival = string.match(text, '^(%S*) (%S+) (%S+) (%S+) (%S+)$')
  return {tenant = tenant, cost = tonumber(cost), give_up = tonumber(give_up), policy = tonumber(policy),
    arrival = tonumber(arrival)}
end

-- When the first waiter of a parked tenant may be tried again; the tenant leaves when nobody is in its line.
local function park(tenant, due)
  if redis.call('EXISTS', KEYS[6] .. ':' .. tenant) == 1 then
    redis.call('ZADD', KEYS[6], int(due), tenant)
  else
    redis.call('ZREM', KEYS[6], tenant)
  end
end

-- A waiting call goes: granted, given up, or withdrawn. Its tenant's next one is due now.
local function leave(id, waiter, now)
  redis.call('HDEL', KEYS[5], id)
  local was_first = redis.call('ZREM', KEYS[4], id) == 1
  if waiter.tenant == '' then return end
  if not was_first then redis.call('ZREM', KEYS[6] .. ':' .. waiter.tenant, id) end
  local due = redis.call('ZSCORE', KEYS[6], waiter.tenant)
  if due and (was_first or tonumber(due) < PLAYING) then park(waiter.tenant, was_first and now or tonumber(due)) end
end
