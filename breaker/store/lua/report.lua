#!lua flags=allow-oom
-- report: what a replica sees of a downstream. Mirrors core/circuit.py:on_report and core/effective.py:adapt.
--
-- KEYS   as in limits.lua
-- ARGV   now, replica, generation, calls, failed, slow, streak, stress, pause us (0 none), draw (permille), estimate,
--        count of tenants that were asked to pause, then per tenant: name, us;
--        then per probe: id, end ("ok", "failed", "gone")
--
-- Returns {0, now, state, generation, it moved, is alone with it, until, failing permille (when it opened),
--          until when the downstream asked for time}
-- include limits
local now, replica, gen, draw = clock(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[10])
local off = off_time(now, ARGV[11], '9e18')
if off then return {off, now} end
local op = load_operation(now)
if not op then return {3, now} end
local c, t = op.circuit, terms_of(op.circuit)
local calls, failed, slow, streak = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local stress, pause, tenants = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[12])
local alone, failing, changed = 0, 0, false

local function open_it(trigger)
  -- 4. The pause grows while probes fail, and falls back after a stable while.
  local since = now - c.closed_at
  if trigger == 'failing' and not (since > 0 and since < t.ramp + t.window) then c.opens = 0 end
  local wait = min(t.open_max, t.open * 2 ^ min(c.opens, 30))
  wait = min(t.open_max, floor(wait * (750 + floor(draw / 2)) / 1000))
  c.opens = c.opens + 1
  move(c, 'open', now, now + wait)
end

local function is_over(n, bad, late)
  if n == 0 then return false end
  return bad * 1000000 >= t.failure * n or (t.slow > 0 and late * 1000000 >= t.slow * n)
end

-- Whether these replicas together see enough of it.
local function trips(seen)
  local n, bad, late, made, votes, in_a_row = 0, 0, 0, 0, 0, 0
  for _, own in ipairs(seen) do
    n, bad, late, made = n + own.calls, bad + own.failed, late + own.slow, made + 1
    if own.streak >= t.consecutive then in_a_row = in_a_row + 1 end
    if own.streak >= t.consecutive or (own.calls >= 3 and is_over(own.calls, own.failed, own.slow)) then votes = votes + 1 end
  end
  if not is_over(n, bad, late) then return false end
  local quorum = made == 1 and 1 or max(2, math.ceil(made / 3))
  failing = floor(1000 * max(bad, t.slow > 0 and late or 0) / n)
  return votes >= quorum and (n >= t.min_calls or in_a_row >= quorum)
end

-- 6. A pause, which is no failure.
if pause > 0 then c.pause, changed = max(c.pause, now + pause), true end
for at = 13, 12 + 2 * tenants, 2 do
  local key, asked = KEYS[2] .. ':' .. ARGV[at], tonumber(ARGV[at + 1])
  local ends = max(tonumber(redis.call('HGET', key, 'pause') or 0), now + asked)
  redis.call('HSET', key, 'pause', int(ends))
  redis.call('PEXPIRE', key, max(redis.call('PTTL', key), floor((ends - now) / 1000) + 60000))
end

if t and c.state == 'disabled' and standing(c, now) == 'closed' then move(c, 'closed', now) end
if t and c.state == 'half-open' then
  -- 5. All probes succeed: closed; one fails: open, longer.
  local is_failed = false
  for at = 13 + 2 * tenants, #ARGV, 2 do
    if redis.call('ZREM', PROBES, ARGV[at]) == 1 then
      if ARGV[at + 1] == 'ok' then c.passed, changed = c.passed + 1, true end
      is_failed = is_failed or ARGV[at + 1] == 'failed'
    end
  end
  if is_failed then
    open_it('probe')
  elseif c.passed >= t.probes then
    move(c, 'closed', now, 0, true)
  end
end
if t and c.state == 'closed' and gen == c.gen then
  -- 1, 2, 3. What this replica sees replaces what it saw; what is older than a window is dropped.
  local found, seen, gone, own, others_call = redis.call('HGETALL', WINDOWS), {}, {}, nil, false
  for at = 1, #found, 2 do
    local moment, n, bad, late, row = string.match(found[at + 1], '^(%S+) (%S+) (%S+) (%S+) (%S+)$')
    moment = tonumber(moment)
    local is_stale = moment <= now - t.window or moment > now
    if is_stale and found[at] ~= replica then
      gone[#gone + 1] = found[at]
    elseif found[at] ~= replica then
      seen[#seen + 1] = {calls = tonumber(n), failed = tonumber(bad), slow = tonumber(late), streak = tonumber(row)}
      others_call = true
    end
  end
  if calls > 0 then
    own = {calls = calls, failed = failed, slow = slow, streak = streak}
    seen[#seen + 1] = own
    redis.call('HSET', WINDOWS, replica, string.format('%.0f %.0f %.0f %.0f %.0f', now, calls, failed, slow, streak))
    redis.call('PEXPIRE', WINDOWS, floor(t.window / 1000) + 60000)
  else
    gone[#gone + 1] = replica
  end
  if #gone > 0 then redis.call('HDEL', WINDOWS, unpack(gone)) end
  if trips(seen) then
    open_it('failing')
  elseif own and others_call and trips({own}) then
    alone = 1
  end
end

-- Concurrency adapts.
local least, stated = op.adaptive_min, op.limits.stated_concurrency
if least > 0 and stated then
  local current = min(c.adaptive > 0 and c.adaptive or stated, stated)
  local used = redis.call('ZCOUNT', KEYS[3], '(' .. int(now), int(now + LEASE))
  local before = c.peak
  c.peak = max(c.peak, used)
  local since = now - c.adapted
  changed = changed or c.peak ~= before
  if since < 0 then c.adapted, since, changed = now, 0, true end
  if stress > 0 then
    if since >= (op.service > 0 and op.service or SERVICE_UNKNOWN) then
      c.adaptive, c.adapted, c.peak, changed = min(stated, max(least, floor(current * 700 / 1000))), now, used, true
    end
  elseif c.adaptive > 0 and since >= floor((t and t.window or 30000000) / 10) then
    if c.peak * 2 >= current then c.adaptive = current + 1 >= stated and 0 or current + 1 end
    c.adapted, c.peak, changed = now, used, true
  end
elseif c.adaptive > 0 then
  c.adaptive, changed = 0, true
end
if changed then save_circuit(c) end
return {0, now, CODES[standing_of(c, now)], c.gen, c.moved, alone, c.ends, c.moved == 1 and failing or 0, int(c.pause)}
