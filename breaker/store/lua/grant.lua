#!lua
-- grant: whose turn is it among the waiting calls? Mirrors core/waiting.py:grant.
--
-- KEYS   as in limits.lua
-- ARGV   now, estimate, not_after, replica, lease_us, has_waiters ("1" keeps the replica's waiters alive),
--        operation, wake channel prefix
--
-- A granted call holds a lease also where slots are not limited: that is how a lost wake is noticed.
-- Returns {0, now, calls waiting, us until the next grant makes sense (-1: nobody waits), circuit's generation, its state,
--          it moved, own id...}; a probe's id has "*" behind. Other replicas hear of theirs on their wake channel: "operation id..."
-- include limits
local now, replica, lease_us = clock(ARGV[1]), ARGV[4], tonumber(ARGV[5])
local off = off_time(now, ARGV[2], ARGV[3])
if off then return {off, now} end
local op = load_operation(now)
if not op then return {3, now} end
purge(KEYS[3], now)
if ARGV[6] == '1' then redis.call('ZADD', KEYS[8], int(now), replica) end

-- 1. Parked tenants whose time has come send their first waiter, with its old place in the line.
-- So do those whose time lies further ahead than any can: the clock went back.
local function unpark()
  local due = redis.call('ZRANGEBYSCORE', KEYS[6], '-inf', int(now), 'LIMIT', 0, 16)
  for _, tenant in ipairs(redis.call('ZRANGEBYSCORE', KEYS[6], '(' .. int(now + PARK_MAX), '(' .. int(PLAYING),
    'LIMIT', 0, 16)) do
    due[#due + 1] = tenant
  end
  for _, tenant in ipairs(due) do
    local line = KEYS[6] .. ':' .. tenant
    local first = redis.call('ZRANGE', line, 0, 0, 'WITHSCORES')
    if first[1] then
      redis.call('ZREM', line, first[1])
      redis.call('ZADD', KEYS[4], first[2], first[1])
      redis.call('ZADD', KEYS[6], int(PLAYING), tenant)
    else
      redis.call('ZREM', KEYS[6], tenant)
    end
  end
end

local alive = {}
local function is_alive(id)
  local owner = string.match(id, '^[^.]+')
  if alive[owner] == nil then
    alive[owner] = (tonumber(redis.call('ZSCORE', KEYS[8], owner) or 0)) > now - 2000000
  end
  return alive[owner]
end

local leases, granted, next_us = {}, {}, nil
for step = 1, 64 do
  unpark()
  local id = redis.call('ZRANGE', KEYS[4], 0, 0)[1]
  if not id then break end
  local bar, bar_wait = bars(op, nil, now)
  if op.hold == 'paused' or bar then
    next_us = min(bar_wait or 500000, 500000)
    break
  end
  local waiter = waiter_of(id)
  if not waiter then
    redis.call('ZREM', KEYS[4], id)
  elseif waiter.give_up <= now or not is_alive(id) then
    -- 2. Nobody listens any more: its replica died, or has answered it by its own timer.
    leave(id, waiter, now)
  else
    local own = waiter.tenant ~= '' and tenant_of(op, waiter.tenant, now) or nil
    local policy, wait = blocks(op, own, waiter.cost, now)
    if is_own(policy) then
      -- 3. Blocked by its own tenant's limit: it steps aside and blocks nobody.
      local line = KEYS[6] .. ':' .. waiter.tenant
      redis.call('ZREM', KEYS[4], id)
      redis.call('ZADD', line, int(waiter.arrival), id)
      redis.call('PEXPIRE', line, 180000)
      local pause = policy == TENANT_SLOTS and 1000000 or min(max(1, wait), PARK_MAX)
      redis.call('ZADD', KEYS[6], int(now + pause), waiter.tenant)
    elseif policy then
      -- 4. The first in line has no room, so nobody has. A slot comes with a settle.
      next_us = policy == SLOTS and 500000 or wait
      break
    else
      local leased = start(op, own, id, waiter.cost, now, leases, lease_us, true)
      leave(id, waiter, now)
      granted[#granted + 1] = leased == 2 and id .. '*' or id
    end
  end
  if step == 64 then next_us = 0 end
end
local due = redis.call('ZRANGE', KEYS[6], 0, 0, 'WITHSCORES')[2]
if due and tonumber(due) < PLAYING then next_us = min(next_us or PLAYING, max(0, tonumber(due) - now)) end
local changed = #granted > 0 or op.changed
for _, own in pairs(op.tenants) do changed = changed or (own and own.changed) end
if changed then
  save(op, now)
  save_leases(leases, lease_us, now)
end
local waiting = redis.call('HLEN', KEYS[5])
local c = op.circuit
local out = {0, now, waiting, waiting > 0 and floor(next_us or 0) or -1, c.gen, CODES[standing_of(c, now)], c.moved}
local others = {}
for _, id in ipairs(granted) do
  local owner = string.match(id, '^[^.]+')
  if owner == replica then
    out[#out + 1] = id
  else
    others[owner] = (others[owner] or ARGV[7]) .. ' ' .. id
  end
end
for owner, message in pairs(others) do redis.call('PUBLISH', ARGV[8] .. owner, message) end
return out
