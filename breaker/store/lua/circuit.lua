-- circuit: may anything go to this downstream at all? Mirrors core/{circuit,quorum,effective}.py.
-- The loader puts this text in place of the line `-- include circuit`, within limits.lua.
--
-- KEYS[12] circuit  hash  state, gen, since, until, opens, passed, closed_at, held, holds ("from to ..."), pause,
--                         adaptive, adapted, peak; by a person: author, reason
-- and under its name  :p  zset  probe id -> lease expiry, us      :w  hash  replica -> "at calls failed slow streak"
local CIRCUIT, SLOW_DOWN, TENANT_PAUSE = 14, 15, 16
local CODES = {closed = 0, open = 1, ['half-open'] = 2, ['forced-open'] = 3, disabled = 4}
local PROBES, WINDOWS = KEYS[12] .. ':p', KEYS[12] .. ':w'
local PROBE_RETRY, SKEW = 1000000, 2000000

-- "failure_ppm slow_ppm min_calls consecutive window open open_max probes ramp shadow", or nothing without a circuit.
-- Read when somebody asks: while a circuit is closed and has been for long, nobody does.
local function terms_of(c)
  if c.terms or not c.text then return c.terms end
  local n = {}
  for word in string.gmatch(c.text, '%S+') do n[#n + 1] = tonumber(word) end
  c.terms = {failure = n[1], slow = n[2], min_calls = n[3], consecutive = n[4], window = n[5], open = n[6],
    open_max = n[7], probes = n[8], ramp = n[9], shadow = n[10] == 1}
  return c.terms
end

local function load_circuit(text)
  -- Nothing stands there while nothing has happened, and to hear that is much less to read.
  if redis.call('EXISTS', KEYS[12]) == 0 then
    return {state = 'closed', text = text, holds = '', moved = 0, gen = 0, since = 0, ends = 0, opens = 0, passed = 0,
      closed_at = 0, held = 0, pause = 0, adaptive = 0, adapted = 0, peak = 0}
  end
  local f = redis.call('HMGET', KEYS[12], 'state', 'gen', 'since', 'until', 'opens', 'passed', 'closed_at', 'held', 'holds',
    'pause', 'adaptive', 'adapted', 'peak')
  local function number(at) return tonumber(f[at]) or 0 end
  return {state = f[1] or 'closed', text = text, holds = f[9] or '', moved = 0, gen = number(2), since = number(3),
    ends = number(4), opens = number(5), passed = number(6), closed_at = number(7), held = number(8), pause = number(10),
    adaptive = number(11), adapted = number(12), peak = number(13)}
end

local function save_circuit(c)
  redis.call('HSET', KEYS[12], 'state', c.state, 'gen', int(c.gen), 'since', int(c.since), 'until', int(c.ends),
    'opens', int(c.opens), 'passed', int(c.passed), 'closed_at', int(c.closed_at), 'held', int(c.held), 'holds', c.holds,
    'pause', int(c.pause), 'adaptive', int(c.adaptive), 'adapted', int(c.adapted), 'peak', int(c.peak))
end

-- The state at this moment: what ends by time needs nobody to end it.
local function standing(c, now)
  if c.state == 'closed' then return 'closed' end
  if c.state == 'open' and (c.ends <= now or c.ends > now + terms_of(c).open_max + SKEW) then return 'half-open' end
  if c.ends > 0 and c.ends <= now then
    if c.state == 'forced-open' then return 'half-open' end
    if c.state == 'disabled' then return 'closed' end
  end
  return c.state
end

local function standing_of(c, now) return c.text and standing(c, now) or 'disabled' end

-- A lease that ends later than any can was written before the clock went back: it does not count.
local function probes_free(c, now)
  local t = terms_of(c)
  if c.state ~= 'half-open' then return t.probes end
  -- One at least, also when so many have passed that fewer are asked for by now: it is what closes the circuit.
  return max(1, t.probes - c.passed) - redis.call('ZCOUNT', PROBES, '(' .. int(now), int(now + LEASE + SKEW))
end

-- Why nothing may start now, and for how long: policy, us. Also what a circuit in shadow would say.
local function circuit_bars(c, now)
  if c.state == 'closed' or not c.text then return nil end
  local state = standing(c, now)
  if state == 'forced-open' then return CIRCUIT, c.ends > 0 and max(0, c.ends - now) or terms_of(c).open_max end
  if state == 'open' then return CIRCUIT, c.ends - now end
  if state == 'half-open' and probes_free(c, now) <= 0 then return CIRCUIT, PROBE_RETRY end
end

-- The downstream asked for time, for this tenant alone: how long still.
local function tenant_pause(op, own, now)
  if not own then return nil end
  local left = own.pause - now
  if left > 0 and left <= op.pause_max then return TENANT_PAUSE, left end
end

-- The same for all of the operation, and then for a tenant of it.
local function bars(op, own, now)
  local c = op.circuit
  if c.state ~= 'closed' then
    local policy, wait = circuit_bars(c, now)
    if policy and (not terms_of(c).shadow or standing(c, now) == 'forced-open') then return policy, wait end
  end
  local left = c.pause - now
  if left > 0 and left <= op.pause_max then return SLOW_DOWN, left end
  if own then return tenant_pause(op, own, now) end
end

local function in_shadow(op, now)
  local c = op.circuit
  if c.state ~= 'closed' and c.text and terms_of(c).shadow and circuit_bars(c, now) then return CIRCUIT end
end

-- A new generation begins: nothing that began before it counts.
local function move(c, state, now, ends, by_probes)
  local was_held = c.held
  c.state, c.gen, c.since, c.ends, c.passed, c.moved = state, c.gen + 1, now, ends or 0, 0, 1
  c.closed_at = by_probes and now or 0
  if state == 'open' or state == 'half-open' or state == 'forced-open' then
    if was_held == 0 then c.held = now end
  elseif was_held > 0 then
    local kept = {}
    for from, to in string.gmatch(c.holds, '(%d+) (%d+)') do kept[#kept + 1] = from .. ' ' .. to end
    kept[#kept + 1] = int(was_held) .. ' ' .. int(now)
    c.holds = table.concat(kept, ' ', max(1, #kept - 7))
    c.held = 0
  end
  redis.call('DEL', PROBES, WINDOWS)
  save_circuit(c)
  redis.call('HDEL', KEYS[12], 'author', 'reason')
  local cluster, name = string.match(KEYS[1], '^brk:(.-):{(.-)}:')
  redis.call('PUBLISH', 'brk:' .. cluster .. ':wake:jobs', string.format('=circuit %s %.0f %s', name, c.gen, state))
end

local function is_probing(c, now)
  return c.state ~= 'closed' and c.text and standing(c, now) == 'half-open' and probes_free(c, now) > 0
end

-- Whether only probes may start now; in shadow everything may.
local function tries_only(c, now) return is_probing(c, now) and not terms_of(c).shadow end

-- A probe starts; the first one makes the circuit half-open.
local function probe(c, id, now, lease_us)
  if c.state ~= 'half-open' then move(c, 'half-open', now) end
  redis.call('ZREMRANGEBYSCORE', PROBES, '-inf', int(now))
  redis.call('ZADD', PROBES, int(now + lease_us), id)
  redis.call('PEXPIRE', PROBES, 86400000)  -- its lease is renewed for as long as it runs
end

-- How long of this time work was held: it does not count against a job's retries.
local function held_between(c, from, to)
  if not c.text or terms_of(c).shadow then return 0 end
  local total = 0
  for first, last in string.gmatch(c.holds, '(%d+) (%d+)') do
    total = total + max(0, min(tonumber(last), to) - max(tonumber(first), from))
  end
  if c.held > 0 then total = total + max(0, to - max(c.held, from)) end
  return total
end

-- How much of the limits holds, permille.
local function ramp_of(c, now)
  if c.closed_at == 0 or c.state ~= 'closed' or not c.text then return 1000 end
  local t, since = terms_of(c), now - c.closed_at
  if t.shadow or since < 0 or since >= t.ramp then return 1000 end
  return 100 + floor(900 * since / t.ramp)
end

-- What holds of the stated limits while concurrency has adapted and the ramp rises.
local function make_effective(limits, c, now)
  local permille = ramp_of(c, now)
  if limits.concurrency and limits.concurrency > 0 then
    if c.adaptive > 0 then limits.concurrency = min(limits.concurrency, c.adaptive) end
    if permille < 1000 then limits.concurrency = max(1, floor(limits.concurrency * permille / 1000)) end
  end
  if permille < 1000 and limits.interval > 0 then
    limits.period = floor((limits.period * 1000 + permille - 1) / permille)
    limits.interval = floor((limits.period + limits.limit - 1) / limits.limit)
    limits.burst = max(1, floor(limits.burst * permille / 1000))
    limits.tau = limits.interval * limits.burst
  end
end
