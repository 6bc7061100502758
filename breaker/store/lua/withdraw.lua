#!lua flags=allow-oom
-- withdraw: a call gives up: its wait is over, or its admission got lost. Mirrors core/settling.py:withdraw.
--
-- KEYS   as in limits.lua
-- ARGV   now, then per call: id, tenant ("" none), cost, why ("timeout" keeps what was granted; "gone" gives all back)
--
-- Returns {0, now, calls waiting}, then per call {what, policy, retry_us}
--   what 1 it had been granted (and is kept on "timeout"), 2 it was waiting, 0 unknown: a tombstone stands
-- include limits
local now = clock(ARGV[1])
local op = load_operation(now)
if not op then return {3, now} end
local out = {0, now, 0}
for i = 2, #ARGV, 4 do
  local id, tenant, cost, why = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
  local own = tenant ~= '' and tenant_of(op, tenant, now) or nil
  local waiter, what, policy, retry = waiter_of(id), 0, 0, 0
  local expiry = not waiter and tonumber(redis.call('ZSCORE', KEYS[3], id) or 0) or 0
  local is_granted = expiry > now
  if waiter then leave(id, waiter, now) end
  if is_granted then
    what = 1
    if why == 'gone' then refund(op, own, id, cost, now) end
  elseif why == 'timeout' then
    -- Still in line, or dropped from it by a grant that came just before: a ticket in any case.
    local blocked, wait = bars(op, own, now)
    if not blocked then blocked, wait = blocks(op, own, cost, now) end
    what, policy = 2, blocked or (waiter and waiter.policy) or TURN
    retry = ticket(op, own, policy, cost, wait or 0, now)
  elseif waiter then
    what, policy = 2, waiter.policy
  else
    -- The lost admission may still be on its way to us.
    redis.call('ZADD', KEYS[7], int(now + LEASE), id)
    redis.call('ZREMRANGEBYSCORE', KEYS[7], '-inf', int(now))
    redis.call('PEXPIRE', KEYS[7], 20000)
  end
  out[#out + 1], out[#out + 2], out[#out + 3] = what, policy, retry
end
save(op, now)
out[3] = redis.call('HLEN', KEYS[5])
return out
