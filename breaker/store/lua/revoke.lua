#!lua flags=allow-oom
-- revoke: an accept whose answer got lost, or that was not durable enough, is taken back. Mirrors core/accepting.py:revoke.
--
-- KEYS   as in limits.lua and queue.lua
-- ARGV   now, replica, then per call: lease id, job id, tenant, cost, caller, key ("-" none)
--
-- Returns {0, now}, then per call 1 taken back, 2 it runs or ran already, or another caller was told of it, 0 not known: a
-- tombstone stands
-- include limits
-- include queue
local now = clock(ARGV[1])
local op = load_operation(now)
if not op then return {3, now} end
local q, out, taken = load_queue(), {0, now}, 0

local function forget_key(caller, key, id)
  if key == '-' then return end
  local known = call('GET', key_of(caller, key))
  if known and string.match(known, '^%S (%S+)') == id then call('DEL', key_of(caller, key)) end
end

-- The same key and request came again, and was told of this job.
local function is_shared(caller, key, id)
  local known = key ~= '-' and call('GET', key_of(caller, key))
  return known and string.match(known, '^j (%S+) %+ ') == id
end

for at = 3, #ARGV, 6 do
  local lease_id, id, tenant = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local own = tenant_of(op, tenant, now) or nil
  local what, job = 0, read_head(id)
  if refund(op, own, lease_id, tonumber(ARGV[at + 3]), now) then
    what = 1
    forget_key(ARGV[at + 4], ARGV[at + 5], id)
  elseif job and (job.state == 'q' or job.state == 'w') and job.attempt == 0
    and not is_shared(ARGV[at + 4], ARGV[at + 5], id) then
    what, taken = 1, taken + 1
    if job.state == 'w' then call('ZREM', Q .. ':d', id) else leave_line(q, id, job, now) end
    count_waiting(q, job, -1)
    call('ZREM', Q .. ':e', id)
    call('DEL', Q .. ':j:' .. id)
    call('HDEL', Q .. ':y', id)
    tally('withdrawn', 1)
    tally('bytes', -job.size)
    forget_key(ARGV[at + 4], ARGV[at + 5], id)
  elseif job then
    what = 2
  else
    call('ZADD', KEYS[7], int(now + LEASE), lease_id, int(now + LEASE), id)
    call('ZREMRANGEBYSCORE', KEYS[7], '-inf', int(now))
    call('PEXPIRE', KEYS[7], 20000)
  end
  out[#out + 1] = what
end
if taken > 0 then call('DECRBY', Q .. ':given:' .. ARGV[2], taken) end
save(op, now)
save_queue(q, '')
return out
