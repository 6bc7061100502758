#!lua flags=allow-oom
-- renew: these leases are still held. Mirrors core/settling.py:renew.
--
-- KEYS   as in limits.lua
-- ARGV   now, lease_us, then per lease: id, tenant ("" none)
--
-- A lease that was lost is taken again, above the limit if need be: the work is running. Returns {0, now, lost}
-- include limits
local now = clock(ARGV[1])
local lease_us, leases, lost = tonumber(ARGV[2]), {}, 0
for i = 3, #ARGV, 2 do
  local id, tenant = ARGV[i], ARGV[i + 1]
  local expiry = redis.call('ZSCORE', KEYS[3], id)
  if not expiry or tonumber(expiry) <= now then lost = lost + 1 end
  lease(leases, KEYS[3], id, now + lease_us)
  redis.call('ZADD', PROBES, 'XX', int(now + lease_us), id)
  if tenant ~= '' then lease(leases, KEYS[3] .. ':' .. tenant, id, now + lease_us) end
end
save_leases(leases, lease_us, now)
return {0, now, lost}
