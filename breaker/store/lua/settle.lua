#!lua flags=allow-oom
-- settle: give slots back and learn how long calls take. Mirrors core/settling.py:settle.
--
-- KEYS   as in limits.lua
-- ARGV   now, then per call: lease id, tenant ("" none), linger ("" release now, "mean", or us), service_us (0 not counted)
--
-- Idempotent: a lease id that has gone is nobody else's. Returns {0, now, calls waiting, tenants with waiting jobs}
-- include limits
local now = clock(ARGV[1])
local service = tonumber(redis.call('HGET', KEYS[2], 'service') or 0)
local learned, released, settled = service, {}, {}
for i = 2, #ARGV, 4 do
  local id, tenant, linger, took = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  local own_slots = KEYS[3] .. ':' .. tenant
  if took > 0 then
    -- A moving mean over about eight calls.
    learned = learned == 0 and took or learned + floor((took - learned) / 8)
  end
  if linger == '' then
    released[#released + 1] = id
    if tenant ~= '' then redis.call('ZREM', own_slots, id) end
  else
    -- Abandoned, and still being worked on downstream: the slot stays for as long as that takes.
    local stay = linger == 'mean' and (service > 0 and service or SERVICE_UNKNOWN) or tonumber(linger)
    local expiry = int(now + min(stay, LEASE))
    for _, key in ipairs(tenant ~= '' and {KEYS[3], own_slots} or {KEYS[3]}) do
      if (tonumber(redis.call('ZSCORE', key, id) or 0)) > now then redis.call('ZADD', key, expiry, id) end
    end
  end
  if tenant ~= '' then settled[tenant] = true end
end
if #released > 0 then redis.call('ZREM', KEYS[3], unpack(released)) end
if learned ~= service then redis.call('HSET', KEYS[2], 'service', int(learned)) end
purge(KEYS[3], now)
for tenant in pairs(settled) do purge(KEYS[3] .. ':' .. tenant, now) end
if redis.call('EXISTS', KEYS[6]) == 1 then
  -- A tenant that waited for one of its own slots may try again.
  for tenant in pairs(settled) do
    local due = redis.call('ZSCORE', KEYS[6], tenant)
    if due and tonumber(due) < PLAYING then redis.call('ZADD', KEYS[6], int(min(now, tonumber(due))), tenant) end
  end
end
if redis.call('EXISTS', KEYS[11] .. ':w') == 1 then
  -- Its lines of jobs may, too (their names are in queue.lua; `w` holds those blocked by their tenant's cap).
  for tenant in pairs(settled) do
    for band = 0, 3 do redis.call('ZADD', KEYS[11] .. ':w', 'XX', int(now), band .. ' ' .. tenant) end
  end
end
return {0, now, redis.call('HLEN', KEYS[5]), redis.call('HLEN', KEYS[11] .. ':n')}
