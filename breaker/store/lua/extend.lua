#!lua flags=allow-oom
-- extend: these jobs are still running. As renew.lua, for jobs.
--
-- KEYS   as in limits.lua and queue.lua
-- ARGV   now, lease_us, then per job: id, attempt, tenant, slot
--
-- A lease that was lost is not taken back (another replica may run the job by now), but its slot is: the work is
-- running. Returns {0, now, lost, id of each lost job...}
-- include limits
-- include queue
local now, lease_us = clock(ARGV[1]), tonumber(ARGV[2])
local leases, out = {}, {0, now, 0}
for at = 3, #ARGV, 4 do
  local id, attempt = ARGV[at], tonumber(ARGV[at + 1])
  local job = read_head(id)
  if job and job.state == 'r' and job.attempt == attempt then
    call('ZADD', Q .. ':l', int(now + lease_us), id)
  else
    out[3], out[#out + 1] = out[3] + 1, id
  end
  lease(leases, KEYS[3], ARGV[at + 3], now + lease_us)
  call('ZADD', PROBES, 'XX', int(now + lease_us), ARGV[at + 3])
  if call('EXISTS', KEYS[3] .. ':' .. ARGV[at + 2]) == 1 then
    lease(leases, KEYS[3] .. ':' .. ARGV[at + 2], id .. '.' .. attempt, now + lease_us)
  end
end
save_leases(leases, lease_us, now)
return out
