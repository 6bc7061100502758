#!lua flags=allow-oom
-- lease: which jobs may start now? Leasing is admission: rate, slots, tenant caps and turn in one step.
--
-- KEYS   as in limits.lua and queue.lua
-- ARGV   now, estimate, not_after, replica, lease_us, wake channel prefix, jobs wanted, is idle (1: may run a suspect
--        alone), operation,
--        number of this question, number of the newest whose answer was heard ("" the one before this)
--
-- Mirrors core/leasing.py. With batches, all jobs of one answer are one batch: one slot, and its rate as debt.
-- Returns {0, now, jobs waiting, us until it makes sense to ask again (-1: nothing is due), wants to be alone,
--          is alone, more could start, lost, expired, slot, circuit's generation, its state, it moved, jobs are probes},
--          then per job {id, text}
-- include limits
-- include queue
-- include turn
local now, replica, lease_us = clock(ARGV[1]), ARGV[4], tonumber(ARGV[5])
local off = off_time(now, ARGV[2], ARGV[3])
if off then return {off, now} end
if call('EXISTS', KEYS[1]) == 0 then return {3, now} end
local q = load_queue()

-- What was given out in an answer that got lost runs nowhere: to the front, and nobody is a suspect for it. Only if it was
-- that question which gave it out: what an answer that was heard gave out runs.
local last_key = Q .. ':last:' .. replica
if ARGV[11] ~= '' then
  local number, given = string.match(call('GET', last_key) or '', '^(%d+)(.*)$')
  if number and tonumber(number) > tonumber(ARGV[11]) then
    for id, attempt in string.gmatch(given, '(%S+) (%d+)') do
      local job = read_head(id)
      if job and job.state == 'r' and job.attempt == tonumber(attempt) then give_back(q, id, job, now, 0) end
    end
    call('DEL', last_key)
  end
end
local op = load_operation(now)
local wanted, is_idle = tonumber(ARGV[7]), ARGV[8] == '1'
local c, bar, bar_wait, probed = op.circuit, nil, nil, 0
bar, bar_wait = bars(op, nil, now)
local is_held = op.hold == 'paused' or bar ~= nil
load_turn(tries_only(c, now) and URGENT or max(1, q.batch > 0 and q.batch or wanted))
local lost, expired, next_us, leases, out = 0, 0, nil, {}, {}
local given, left, running = {ARGV[10]}, {}, {}  -- what is written once at the end

-- 1. Leases that ran out: their replica died. The job goes to the front, as a suspect; where sending twice is not
-- safe nobody knows what happened.
local function lose(id)
  call('ZREM', Q .. ':l', id)
  local job = read_head(id)
  if not job or job.state ~= 'r' then return end
  lost = lost + 1
  call('RPUSH', Q .. ':h:' .. id, string.format('{"at_us":%.0f,"attempt":%d,"what":"lost"}', now, job.attempt))
  call('LTRIM', Q .. ':h:' .. id, -20, -1)
  if q.once then
    finish(q, id, job, 'u', 'l', '', now)
    -- Its replica may be alive and the request under way: the downstream is asked when that must have ended.
    if q.probe > 0 then call('ZADD', Q .. ':p', int(now + q.probe), id) end
    return
  end
  if job.suspect == 2 then job.lost = job.lost + 1 end
  if job.lost >= POISON_MAX then
    finish(q, id, job, 'x', 'p', '', now)
    return
  end
  job.suspect, job.since, job.reason = 1, now, 'l'
  count_waiting(q, job, 1)
  wait_in_line(q, id, job, now, true)
  save_head(id, job)
end

for _, id in ipairs(call('ZRANGEBYSCORE', Q .. ':l', '-inf', int(now), 'LIMIT', 0, 16)) do lose(id) end
-- A lease that ends later than any can was written before the clock went back.
for _, id in ipairs(call('ZRANGEBYSCORE', Q .. ':l', '(' .. int(now + lease_us + 2000000), '+inf', 'LIMIT', 0, 16)) do
  call('ZADD', Q .. ':l', int(now + lease_us), id)
end

-- 2. What did not start in time ends, visibly.
local function expire(id, job)
  save_lines()
  if job.state == 'w' then call('ZREM', Q .. ':d', id) else leave_line(q, id, job, now) end
  count_waiting(q, job, -1)
  finish(q, id, job, 'e', job.reason, '', now)
  expired = expired + 1
end
for _, id in ipairs(call('ZRANGEBYSCORE', Q .. ':e', '-inf', int(now), 'LIMIT', 0, 16)) do
  local job = read_head(id)
  call('ZREM', Q .. ':e', id)
  if job and (job.state == 'q' or job.state == 'w') then expire(id, job) end
end

-- 3. What was scheduled, or waited to be tried again, stands in line; so do lines whose cap may have room.
for _, id in ipairs(call('ZRANGEBYSCORE', Q .. ':d', '-inf', int(now), 'LIMIT', 0, 64)) do
  local job = read_head(id)
  call('ZREM', Q .. ':d', id)
  if job and job.state == 'w' then
    if job.first > 0 then job.first = job.first + held_between(c, job.since, now) end
    job.since = now
    wait_in_line(q, id, job, now, false, op.service)
    save_head(id, job)
  end
end
unpark_lines(q, now)


local function take(id, job, text, slot, is_alone)
  left[job.band] = left[job.band] or {}
  table.insert(left[job.band], id)
  if job.expiry > 0 then call('ZREM', Q .. ':e', id) end
  count_waiting(q, job, -1)
  -- What it waited while nothing could start does not count against its retries.
  if job.first > 0 then job.first = job.first + held_between(c, job.since, now) end
  job.state, job.attempt, job.since, job.suspect = 'r', job.attempt + 1, now, is_alone and 2 or 0
  if job.first == 0 then job.first = now end
  local head, held = mutable(job), id .. '.' .. job.attempt
  call('SETRANGE', Q .. ':j:' .. id, 0, head)
  running[#running + 1], running[#running + 2] = int(now + lease_us), id
  given[#given + 1] = id .. ' ' .. job.attempt
  local own = tenant_of(op, job.tenant, now)
  if own then
    charge_bucket(own, job.cost, now)
    lease(leases, own.slots_key, held, now + lease_us)
  end
  out[#out + 1], out[#out + 2] = id, head .. string.sub(text, 56)
  return slot or held
end

-- The operation's own limits are charged: for a batch once a slot, and its items as debt.
local function charge_operation(slot, cost)
  charge_bucket(op, cost, now)
  op.started = op.started + cost
  if op.quota then op.quota_used = op.quota_used + cost end
  lease(leases, KEYS[3], slot, now + lease_us)
  if is_probing(c, now) then
    if not terms_of(c).shadow then probed = 1 end
    probe(c, slot, now, lease_us)
    bar, bar_wait = bars(op, nil, now)
  end
end

-- Limits may have been lowered since a job was accepted: one that costs more than they ever allow at once waits for
-- all of the burst (or quota), and blocks nobody for ever.
local function at_once(limits, cost)
  return limits.interval > 0 and min(cost, floor(limits.tau / limits.interval)) or cost
end

local function of_quota(cost) return op.quota > 0 and min(cost, op.quota) or cost end

local function fitting(own, cost)
  cost = at_once(op.limits, cost)
  if own then cost = at_once(own.limits, cost) end
  return op.quota and of_quota(cost) or cost
end

local function blocks_job(job)
  local own = tenant_of(op, job.tenant, now) or nil
  if op.shadow then return tenant_pause(op, own, now) end
  return blocks(op, own, never_fits(op, own, job.cost) and fitting(own, job.cost) or job.cost, now)
end

-- 4. A suspect runs alone on its replica, so that a job that kills replicas takes no neighbours along.
local suspects, wants_alone, slot, is_stopped = call('ZCARD', Q .. ':z'), 0, nil, false
if suspects > 0 and not is_held and wanted > 0 then
  if is_idle then
    for _, id in ipairs(call('ZRANGE', Q .. ':z', 0, 3)) do
      local text = call('GET', Q .. ':j:' .. id)
      local job = text and parse(text)
      if not job then
        call('ZREM', Q .. ':z', id)
      else
        local policy, wait = blocks_job(job)
        if not policy then
          call('ZREM', Q .. ':z', id)
          slot = take(id, job, text, nil, true)
          charge_operation(slot, job.cost)
          break
        end
        local is_slots = policy == SLOTS or policy == TENANT_SLOTS
        next_us = min(next_us or 9e15, is_slots and SLOT_RETRY or max(wait, 1000))
        if not is_own(policy) then
          -- The next slot is kept for it: busy replicas take the one that they give back in the same step.
          if policy == SLOTS then call('HSET', Q, 'kept_until', int(now + 2 * SLOT_RETRY)) end
          is_stopped = true
          break
        end
        -- Its tenant's cap blocks no other suspect: it steps behind them.
        call('ZADD', Q .. ':z', int(tonumber(call('ZRANGE', Q .. ':z', -1, -1, 'WITHSCORES')[2]) + 1), id)
      end
    end
  else
    local f = call('HMGET', Q, 'alone', 'alone_until')
    local alone_until = tonumber(f[2]) or 0
    if f[1] == replica or alone_until <= now or alone_until > now + lease_us then
      call('HSET', Q, 'alone', replica, 'alone_until', int(now + lease_us))
      wants_alone = 1
    end
  end
end

-- 5. The turn of the others: one after another, until capacity or wish is used up.
local is_alone, suffix, is_blocked, cost, sizes = slot ~= nil, '', is_held or slot ~= nil or is_stopped, 0, 0
local group, most, is_batch = nil, wanted, false

local function has_plain() return call('EXISTS', Q .. ':v:0', Q .. ':v:1', Q .. ':v:2', Q .. ':v:3') > 0 end

if q.batch > 0 then
  -- A batch that is due later than any can was put off before the clock went back.
  for _, late in ipairs(call('ZRANGEBYSCORE', Q .. ':b', '(' .. int(now + max(q.batch_window, 1000000)), '+inf', 'LIMIT', 0, 16)) do
    call('ZADD', Q .. ':b', int(now + q.batch_window), late)
  end
end
if not is_blocked and (q.batch == 0 or not has_plain()) then
  -- Jobs of a batch key stand in lines of their own. When batches are switched on, those that wait already go first;
  -- when they are switched off, the groups that are left go one by one.
  group = call('ZRANGEBYSCORE', Q .. ':b', '-inf', int(now), 'LIMIT', 0, 1)[1]
  is_batch = group ~= nil and q.batch > 0
end
if suspects > 0 and not is_idle then
  local kept_until = tonumber(call('HGET', Q, 'kept_until')) or 0
  if kept_until > now and kept_until <= now + 2 * SLOT_RETRY then op.used = op.used + 1 end
end
if group then suffix = ':' .. group end
if is_batch then
  most = wanted > 0 and q.batch or 0
  -- Rate is paid behind, as debt: a batch is larger than any burst.
  if op.limits.interval > 0 and op.tat > now and not op.shadow then
    is_blocked, next_us = true, min(next_us or 9e15, op.tat - now)
  end
end

local function blocks_item(job)
  if not is_batch or op.shadow then return blocks_job(job) end
  local own = tenant_of(op, job.tenant, now) or nil
  if own then
    local pause, left = tenant_pause(op, own, now)
    if pause then return pause, left end
    local policy, wait = bucket_blocks(own, at_once(own.limits, job.cost), now, TENANT_RATE, TENANT_SLOTS)
    if own.limits.closed then policy, wait = TENANT_RATE, op.retry_max end
    if policy then return policy, wait end
  end
  if op.limits.closed then return CLOSED, (op.until_us or now + op.retry_max) - now end
  if op.quota and op.quota_used + cost + of_quota(job.cost) > op.quota then
    return QUOTA, op.quota_end > 0 and op.quota_end - now or op.retry_max
  end
  if op.limits.concurrency and op.used >= op.limits.concurrency then return SLOTS, 0 end
end

local steps, steps_max = 0, 2 * most + 64
while not is_blocked and #out / 2 < most and steps < steps_max do
  steps = steps + 1
  local band, class
  if not is_batch and tries_only(c, now) then band, class = pick_urgent(suffix, now) else band, class = pick_band(suffix, now) end
  if not band then break end
  local following = next_of(band, suffix)
  local line, id, text, job = following.line, following.id, following.text, following.job
  if not job then
    -- Somebody deleted keys by hand: the line is put right, and the ledger shows what is missing.
    save_lines()
    if id then
      call('ZREM', Q .. ':t:' .. band .. ':' .. line, id)
      call('ZREM', Q .. ':g:' .. band, id)
    end
    if call('EXISTS', Q .. ':t:' .. band .. ':' .. line) == 0 then leave_turn(q, band, line, 0) end
  elseif job.expiry > 0 and job.expiry <= now and job.first == 0 then
    expire(id, job)
  else
    local policy, wait = blocks_item(job)
    if is_own(policy) then
      park_line(q, band, line, parked_until(policy, wait, now, lease_us, line))
    elseif policy then
      is_blocked, next_us = true, min(next_us or 9e15, policy == SLOTS and lease_us or max(1, wait))
    elseif is_batch and sizes > 0 and sizes + job.size > q.batch_bytes then
      break
    else
      serve(q, band, class, line, id, job)
      if group then
        call('ZREM', Q .. ':k:' .. group, id)
        call('HINCRBY', Q .. ':kb', group, int(-job.size))
      end
      slot = take(id, job, text, slot)
      cost, sizes = cost + job.cost, sizes + job.size
      if not is_batch then
        charge_operation(slot, job.cost)
        slot = nil
        -- All probes are under way: the others wait for what they say.
        is_blocked = bar ~= nil
      end
    end
  end
end
save_lines()
for band, ids in pairs(left) do call('ZREM', Q .. ':g:' .. band, unpack(ids)) end
if #running > 0 then call('ZADD', Q .. ':l', unpack(running)) end
if group then
  if is_batch and cost > 0 then charge_operation(slot, cost) end
  group_due(q, group, now, #out > 0)
  if #out == 0 and not is_blocked and wanted > 0 and steps < steps_max then
    -- All of its lines are parked: others may be due, and this one is looked at again when they come back.
    call('ZADD', Q .. ':b', 'XX', int(now + 1000000), group)
  end
end
if reap(q, now) and wanted > 0 then next_us = min(next_us or 9e15, REAP_AGAIN) end

-- 6. When does it make sense to ask again?
local has_more = false
if not is_blocked and wanted > 0 and (has_plain() or call('ZCOUNT', Q .. ':b', '-inf', int(now)) > 0) then
  local policy, wait
  if is_batch then
    if op.limits.interval > 0 and op.tat > now then policy, wait = RATE, op.tat - now end
    if op.limits.concurrency and op.used >= op.limits.concurrency then policy = SLOTS end
  else
    policy, wait = bucket_blocks(op, 1, now, RATE, SLOTS)
  end
  has_more = not policy or op.shadow
  if not has_more then next_us = min(next_us or 9e15, policy == SLOTS and lease_us or wait) end
end
local function due(key)
  local first = call('ZRANGE', Q .. ':' .. key, 0, 0, 'WITHSCORES')[2]
  if first then next_us = min(next_us or 9e15, max(0, tonumber(first) - now)) end
end
if has_more then
  next_us = 0
elseif wanted > 0 then
  if bar then next_us = min(next_us or 9e15, max(1000, bar_wait)) end
  for _, key in ipairs({'d', 'e', 'l'}) do due(key) end
  if not is_held then
    due('w')
    local first = call('ZRANGEBYSCORE', Q .. ':b', '(' .. int(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
    if first then next_us = min(next_us or 9e15, tonumber(first) - now) end
  elseif op.hold == 'paused' and op.hold_until > 0 then
    next_us = min(next_us or 9e15, op.hold_until - now)
  end
end
if has_more and #out / 2 >= wanted then
  local at = tonumber(call('HGET', Q, 'help_at') or 0)
  if now - at > 50000 or now < at then
    call('HSET', Q, 'help_at', int(now))
    call('PUBLISH', ARGV[6] .. 'jobs', '=work ' .. ARGV[9] .. ' ' .. replica)
  end
end
if #out > 0 then
  call('SET', last_key, table.concat(given, ' '), 'PX', 60000)
end
local _, waiting = depths()
save(op, now)
save_leases(leases, lease_us, now)
save_turn(q)
save_queue(q, ARGV[6])
return {0, now, waiting, next_us and floor(next_us) or -1, wants_alone, is_alone and 1 or 0, has_more and 1 or 0, lost,
  expired, slot or '', c.gen, CODES[standing_of(c, now)], c.moved, probed, unpack(out)}
