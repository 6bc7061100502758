#!lua
-- admit: may these calls start now? Mirrors core/admission.py:admit.
--
-- KEYS   as in limits.lua
-- ARGV   now ("" asks TIME), estimate of our clock ("" skips the check), not_after, replica, lease_us,
--        then per call: id, tenant ("" none), cost, wait_us (0 may not wait)
--
-- Returns {0, now, limits text, calls waiting, mean service us, circuit's generation, its state, it moved}, then per call
--   {verdict, policy, retry_us, room policy, remaining, reset_us, is leased (2: as a probe)}
--   verdict 1 admitted (`policy`: a circuit in shadow would refuse), 2 over capacity, 3 in shadow, 4 waiting, 5 refused, 6 too costly, 7 withdrawn
--   or {1 late | 2 clock | 3 unknown operation, now}: nothing was written
-- include limits
local now, replica, lease_us = clock(ARGV[1]), ARGV[4], tonumber(ARGV[5])
local off = off_time(now, ARGV[2], ARGV[3])
if off then return {off, now} end
local op = load_operation(now)
if not op then return {3, now} end

local may_wait = not op.alert and not op.shadow
local line = may_wait and redis.call('ZCARD', KEYS[4]) or 0
local waiters = may_wait and redis.call('HLEN', KEYS[5]) or 0
local parked = waiters > line and redis.call('ZCARD', KEYS[6]) > 0
local tombs = redis.call('EXISTS', KEYS[7]) == 1
local leases, joined = {}, false

-- 4. A call behind others: what it waits for, and for how long by what we know.
local function expected_wait(own, policy, wait, cost, behind)
  if policy == RATE then return wait + line * op.limits.interval end
  if policy == TENANT_RATE then return wait + behind * own.limits.interval end
  if policy == SLOTS then return op.service > 0 and (line + 1) * slot_step(op, op) or 0 end
  if policy == TENANT_SLOTS then return op.service > 0 and (behind + 1) * slot_step(op, own) or 0 end
  if policy == TURN then return line * cost * op.limits.interval end
  return wait
end

local function join(id, tenant, cost, wait_us, policy, own_line)
  redis.call('HSET', KEYS[5], id, string.format('%s %.0f %.0f %d %.0f', tenant, cost, now + wait_us, policy, now))
  if own_line then
    redis.call('ZADD', KEYS[6] .. ':' .. tenant, int(now), id)
    redis.call('PEXPIRE', KEYS[6] .. ':' .. tenant, 180000)
    redis.call('ZADD', KEYS[6], 'NX', int(now), tenant)
    parked = true
  else
    redis.call('ZADD', KEYS[4], int(now), id)
    line = line + 1
  end
  waiters, joined = waiters + 1, true
end

local function tell(out, at, verdict, policy, retry, own, leased)
  local room, remaining, reset = room_of(op, own, now)
  out[at], out[at + 1], out[at + 2], out[at + 3], out[at + 4], out[at + 5], out[at + 6] =
    verdict, policy, retry, room, remaining, reset, leased or 0
end

local out = {0, now, op.text, 0, op.service, 0, 0, 0}
for i = 6, #ARGV, 4 do
  local id, tenant, cost, wait_us = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local own = tenant ~= '' and tenant_of(op, tenant, now) or nil
  local policy, wait = blocks(op, own, cost, now)
  local impossible, bar, bar_wait = never_fits(op, own, cost), bars(op, own, now)
  local at = #out + 1
  op.wanted = op.wanted + cost
  -- 1. A tombstone: its replica has given this call up.
  if tombs and redis.call('ZSCORE', KEYS[7], id) then
    tell(out, at, 7, 0, 0, own)
  -- A person holds the operation: also what is in shadow, or only alerts.
  elseif op.hold then
    local wait = op.hold_until > 0 and op.hold_until - now or op.retry_max
    local policy = op.hold == 'paused' and PAUSED or DRAINING
    tell(out, at, 5, policy, ticket(op, own, CLOSED, cost, wait, now), own)
  -- Nothing goes to a downstream that fails, or asked for time: also what is in shadow, or only alerts.
  elseif bar then
    tell(out, at, 5, bar, ticket(op, own, bar, cost, bar_wait, now), own)
  -- 2. What can never fit is the caller's mistake.
  elseif impossible and not op.shadow then
    tell(out, at, 6, impossible, 0, own)
  else
    -- 3. Nobody overtakes: behind its own tenant's line, and behind those who wait for the same limits.
    local own_line = is_own(policy)
      or (tenant ~= '' and parked and redis.call('ZSCORE', KEYS[6], tenant) ~= false)
    if not policy and (line > 0 or own_line) then policy, wait = TURN, 0 end
    if not policy or (op.alert and not op.shadow) then
      local shadow, leased = in_shadow(op, now), start(op, own, id, cost, now, leases, lease_us)
      tell(out, at, policy and 2 or 1, policy or shadow or 0, 0, own, leased)
    elseif op.shadow then
      tell(out, at, 3, policy, 0, own)
    else
      local behind = own_line and parked and redis.call('ZCARD', KEYS[6] .. ':' .. tenant) or 0
      -- One tenant's line may take a quarter of the room, so that others find some.
      local is_room = waiters < op.waiting_max and (not own_line or behind < max(1, floor(op.waiting_max / 4)))
      if wait_us > 0 and is_room
        and expected_wait(own, policy, wait, cost, behind) <= wait_us then
        join(id, tenant, cost, wait_us, policy, own_line)
        tell(out, at, 4, policy, 0, own)
      else
        -- 5. Refused, with the ticket of the limit that refused.
        tell(out, at, 5, policy, ticket(op, own, policy, cost, wait, now), own)
      end
    end
  end
end
save(op, now)
save_leases(leases, lease_us, now)
if joined then
  redis.call('ZADD', KEYS[8], int(now), replica)
  for _, key in ipairs({KEYS[4], KEYS[5], KEYS[6], KEYS[8]}) do redis.call('PEXPIRE', key, 180000) end
end
out[4], out[6], out[7], out[8] = waiters, op.circuit.gen, CODES[standing_of(op.circuit, now)], op.circuit.moved
return out
