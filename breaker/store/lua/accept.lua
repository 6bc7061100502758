#!lua
-- accept: may these calls start now, and if not, are they jobs from now on? Mirrors core/accepting.py.
--
-- KEYS   as in limits.lua and queue.lua
-- ARGV   now, estimate, not_after, replica, lease_us, wake channel prefix,
--        then per call: lease id, job id, tenant, cost, caller, key ("-" none), fingerprint, band, line,
--        flags (a: asynchronous, w: its caller waits here, o: others shall run it), not_before, deadline, expiry (0 never), callback ("-"), payload
--
-- Returns {0, now, limits text, jobs waiting, mean service us, pace, spread, why it is held (a policy, or 0),
--          circuit's generation, its state, it moved}, then per call
--   {verdict, policy, retry_us, room policy, remaining, reset_us, is leased, job id, ahead}
--   verdict as in admit.lua, and 8 queued, 9 queued before under this key, 10 in progress, 11 key reused,
--   12 ended (its record is kept), 13 outcome unknown
--   and behind all of them, per call {ahead by the fair order, ahead if nobody's line runs dry, ahead in its own line}
-- include limits
-- include queue
local now, replica, lease_us = clock(ARGV[1]), ARGV[4], tonumber(ARGV[5])
local off = off_time(now, ARGV[2], ARGV[3])
if off then return {off, now} end
local op = load_operation(now)
if not op then return {3, now} end
local q = load_queue()
local bands, depth = depths()
local f = call('HMGET', Q, 'bytes', 'pace', 'spread')
local bytes, accepted, leases = tonumber(f[1]) or 0, 0, {}
local tombs, parked = call('EXISTS', KEYS[7]) == 1, call('EXISTS', Q .. ':w') == 1
local started_here = {}

-- 3. Nobody overtakes what could start now, nor its own tenant's jobs.
local function is_behind(tenant)
  if q.batch > 0 then
    if call('ZCOUNT', Q .. ':b', '-inf', int(now)) > 0 then return true end
    return parked and (waiting_of(tenant)) > 0
  end
  if call('EXISTS', Q .. ':v:0', Q .. ':v:1', Q .. ':v:2', Q .. ':v:3', Q .. ':b') > 0 then return true end
  for band = 0, 3 do
    if parked and call('ZSCORE', Q .. ':w', band .. ' ' .. tenant) then return true end
  end
  return false
end

-- 5. Bounds: nothing that was accepted is dropped to make room, so what does not fit is refused.
local function full(tenant, size)
  if depth >= q.jobs_max then return FULL_JOBS end
  if bytes + size > q.bytes_max then return FULL_BYTES end
  if q.tenant_jobs < 0 and q.tenant_bytes < 0 then return nil end
  local own, own_bytes = waiting_of(tenant)
  if q.tenant_jobs >= 0 and own >= q.tenant_jobs then return FULL_TENANT_JOBS end
  if q.tenant_bytes >= 0 and own_bytes + size > q.tenant_bytes then return FULL_TENANT_BYTES end
end

-- A key that is known: its verdict and its job, or nothing when the call is to be treated as new.
local function known_key(id_key, fingerprint)
  local state, id, lease_id, print = string.match(call('GET', id_key) or '', '^(%S) (%S+) (%S+) (%S+)$')
  if not state then return nil end
  if print ~= fingerprint then return 11, id end
  if state == 'u' then return 13, id end
  if state == 'k' then return 12, id end
  if state == 'd' then
    -- Leases of this very exchange are written at its end.
    if started_here[lease_id] or tonumber(call('ZSCORE', KEYS[3], lease_id) or 0) > now then return 10, id end
    -- Its gateway died: where repeating is safe the next one runs it again, else nobody knows.
    return q.once and 13 or nil, id
  end
  local job = call('GETRANGE', Q .. ':j:' .. id, 0, 0)
  if job ~= 'q' and job ~= 'w' and job ~= 'r' then return 12, id end
  return 9, id, lease_id == '-'
end

local function watch(id)
  local others = call('HGET', Q .. ':y', id)
  if not (others and string.find(others, replica, 1, true)) then
    call('HSET', Q .. ':y', id, others and others .. ' ' .. replica or replica)
  end
  call('PEXPIRE', Q .. ':y', 300000)
end

-- The earliest moment at which the call could start, where the limit that blocks it says so.
local function earliest(op, own, policy, wait)
  if policy == CLOSED then return op.until_us end
  if policy == QUOTA then return op.quota_end > 0 and op.quota_end or nil end
  if policy == RATE or (policy == TENANT_RATE and not own.limits.closed) then return now + wait end
  if policy == SLOW_DOWN or policy == TENANT_PAUSE then return now + wait end
  if policy == CIRCUIT and standing(op.circuit, now) == 'open' then return now + wait end
end

local function describe(at)
  local id, band = ARGV[at + 1], tonumber(ARGV[at + 7])
  local due, payload = tonumber(ARGV[at + 10]), ARGV[at + 14]
  local job = {state = 'q', band = band, attempt = 0, failures = 0, lost = 0, suspect = 0, first = 0, since = now,
    reason = '-', accepted = now, deadline = tonumber(ARGV[at + 11]), expiry = tonumber(ARGV[at + 12]),
    cost = tonumber(ARGV[at + 3]), caller = ARGV[at + 4], tenant = ARGV[at + 2], line = ARGV[at + 8],
    key = ARGV[at + 5], callback = ARGV[at + 13]}
  if due > now then job.state = 'w' end
  return id, job, text_of(job, payload)
end

-- Where a new job stands, in O(log n): its own line, and what the others may send while that moves. `stands` has an
-- entry per call.
local stands = {}
local function standing(id, job, higher, beside)
  local _, suffix = group_of(job.line)
  local rank = call('ZRANK', Q .. ':t:' .. job.band .. ':' .. job.line, id) or 0
  local lines = max(1, call('ZCARD', Q .. ':v:' .. job.band .. suffix))
  return {higher + min(beside, rank + (lines - 1) * (rank + 1)), higher + rank + lines * (rank + 1), rank}
end

local function enqueue(at, flags, id, job, text, park_until)
  local band, due = job.band, tonumber(ARGV[at + 10])
  call('SET', Q .. ':j:' .. id, text)
  if job.key ~= '-' then
    call('SET', key_of(job.caller, job.key), 'j ' .. id .. ' - ' .. ARGV[at + 6], 'PX', 7776000000)
  end
  if due > now then
    call('ZADD', Q .. ':d', int(due), id)
  else
    wait_in_line(q, id, job, now, false, op.service, park_until)
    parked = parked or park_until ~= nil
  end
  if job.expiry > 0 then call('ZADD', Q .. ':e', int(job.expiry), id) end
  if string.find(flags, 'w', 1, true) then watch(id) end
  count_waiting(q, job, 1)
  bytes, depth, accepted = bytes + #text, depth + 1, accepted + 1
  tally('accepted', 1)
  tally('bytes', #text)
  local ahead = 0
  for higher = 0, band do ahead = ahead + bands[higher] end
  if due <= now then stands[#stands] = standing(id, job, ahead - bands[band], bands[band]) end
  if due <= now then bands[band] = bands[band] + 1 end
  return id, ahead
end

local out = {0, now, op.text, 0, op.service, tonumber(f[2]) or 0, tonumber(f[3]) or 0, held_for(op, now), 0, 0, 0}
local function tell(verdict, policy, retry, own, leased, id, ahead)
  local room, remaining, reset = room_of(op, own, now)
  local at = #out
  out[at + 1], out[at + 2], out[at + 3], out[at + 4], out[at + 5], out[at + 6], out[at + 7], out[at + 8], out[at + 9] =
    verdict, policy, retry, room, remaining, reset, leased or 0, id or '', ahead or 0
end

for at = 7, #ARGV, 15 do
  stands[#stands + 1] = {0, 0, 0}
  local lease_id, id, tenant, cost, flags = ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3]), ARGV[at + 9]
  local own = tenant_of(op, tenant, now) or nil
  local id_key = ARGV[at + 5] ~= '-' and key_of(ARGV[at + 4], ARGV[at + 5])
  local verdict, known, is_first
  if id_key then verdict, known, is_first = known_key(id_key, ARGV[at + 6]) end
  local policy, wait = blocks(op, own, cost, now)
  local impossible = never_fits(op, own, cost)
  op.wanted = op.wanted + cost
  -- 1. A tombstone: its replica has given this call up.
  if tombs and (call('ZSCORE', KEYS[7], lease_id) or call('ZSCORE', KEYS[7], id)) then
    tell(7, 0, 0, own)
  elseif verdict then
    -- From now on it is promised to somebody else as well: revoke must not take it back.
    if is_first then call('SET', id_key, 'j ' .. known .. ' + ' .. ARGV[at + 6], 'KEEPTTL') end
    if verdict == 9 and string.find(flags, 'w', 1, true) then watch(known) end
    tell(verdict, 0, verdict == 10 and max(op.service, 1000000) or 0, own, 0, known)
  -- 2. What can never fit is the caller's mistake.
  elseif impossible and not op.shadow then
    tell(6, impossible, 0, own)
  -- What is retired takes nothing new, also while a person has paused it.
  elseif op.hold == 'draining' or op.retired then
    tell(5, DRAINING, op.hold and op.hold_until > 0 and op.hold_until - now or op.retry_max, own)
  else
    local bar, bar_wait = bars(op, own, now)
    if bar then policy, wait = bar, bar_wait end
    local is_later = bar or tonumber(ARGV[at + 10]) > now or string.find(flags, 'a', 1, true) or op.hold == 'paused'
    if not is_later and not op.shadow and not policy and is_behind(tenant) then policy, wait = TURN, 0 end
    if not is_later and (op.shadow or not policy) then
      -- A call with a key holds a lease in any case: while it lives, the key is in progress.
      local shadow, leased = in_shadow(op, now), 0
      if not policy then
        leased = start(op, own, lease_id, cost, now, leases, lease_us, id_key)
      elseif id_key then
        leased = 1
        lease(leases, KEYS[3], lease_id, now + lease_us)
        if own then lease(leases, own.slots_key, lease_id, now + lease_us) end
        op.used = op.used + 1
        if own then own.used = own.used + 1 end
      end
      if id_key then
        started_here[lease_id] = true
        call('SET', id_key, 'd ' .. id .. ' ' .. lease_id .. ' ' .. ARGV[at + 6], 'PX', int(max(1, floor(q.window / 1000))))
      end
      tell(policy and 3 or 1, policy or shadow or 0, 0, own, leased)
    else
      local expiry = tonumber(ARGV[at + 12])
      local job_id, job, text = describe(at)
      local bound, could = full(tenant, #text), (bar or not op.shadow) and earliest(op, own, policy, wait)
      if expiry > 0 and could and could >= expiry then
        -- It could not start before it expires: said now, not then.
        tell(5, policy, ticket(op, own, policy, cost, wait, now), own)
      elseif bound then
        -- Room comes with the next start.
        local limited = op.limits.interval > 0 and RATE or TURN
        tell(5, bound, ticket(op, own, limited, cost, max(op.limits.interval, policy == RATE and wait or 0), now), own)
      else
        local is_tenants = is_own(policy) and (bar or not op.shadow)
        local _, ahead = enqueue(at, flags, job_id, job, text, is_tenants and parked_until(policy, wait, now, lease_us, job.line) or nil)
        if string.find(flags, 'o', 1, true) then
          call('PUBLISH', ARGV[6] .. 'jobs', '=work ' .. string.match(KEYS[1], '{(.-)}') .. ' ' .. replica)
        end
        tell(8, policy or 0, 0, own, 0, job_id, ahead)
      end
    end
  end
end
if accepted > 0 then
  call('INCRBY', Q .. ':given:' .. replica, accepted)
  call('PEXPIRE', Q .. ':given:' .. replica, 172800000)
end
out[4], out[9], out[10], out[11] = depth, op.circuit.gen, CODES[standing_of(op.circuit, now)], op.circuit.moved
for _, stand in ipairs(stands) do
  for _, number in ipairs(stand) do out[#out + 1] = number end
end
save(op, now)
save_leases(leases, lease_us, now)
save_queue(q, ARGV[6])
return out
