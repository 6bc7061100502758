#!lua flags=allow-oom
-- ack: attempts ended; results are kept, slots go back. Mirrors core/job_ends.py.
--
-- KEYS   as in limits.lua and queue.lua
-- ARGV   now, wake channel prefix, then per attempt: job id, attempt, tenant, slot,
--        fate (s succeeded, x dead, u unknown, t again after a failure, l later, b back), reason code, delay_us,
--        service_us (0 teaches nothing), probe_us (0 none), result, note
--
-- An attempt whose lease was lost is counted and ignored: its number is the fencing token.
-- Returns {0, now, jobs waiting, late}
-- include limits
-- include queue
local now = clock(ARGV[1])
local q = load_queue()
local service = tonumber(call('HGET', KEYS[2], 'service') or 0)
local learned, late, ended, lines, slots = service, 0, 0, {}, {}
local running, held, told = {}, {}, {}  -- what is written once at the end, and the jobs that were told of
local p = call('HMGET', KEYS[1], 'tenant', 'exceptions')
local is_given_back = false
local has_tenants = p[1] or p[2] == '1'

local function again(id, job, delay)
  job.suspect = 0
  count_waiting(q, job, 1)
  if delay > 0 then
    job.state = 'w'
    call('ZADD', Q .. ':d', int(now + delay), id)
  else
    wait_in_line(q, id, job, now, false, service)
  end
end

local function settle(id, job, at)
  local fate, reason, delay = ARGV[at + 4], ARGV[at + 5], tonumber(ARGV[at + 6])
  local result, note = ARGV[at + 9], ARGV[at + 10]
  running[#running + 1] = id
  if note ~= '' then
    call('RPUSH', Q .. ':h:' .. id, note)
    call('LTRIM', Q .. ':h:' .. id, -20, -1)
  end
  if fate == 's' or fate == 'x' or fate == 'u' then
    ended = ended + 1
    finish(q, id, job, fate, reason, result, now)
    if fate == 'u' and tonumber(ARGV[at + 8]) > 0 then call('ZADD', Q .. ':p', int(now + ARGV[at + 8]), id) end
    return
  end
  job.reason = reason
  if fate ~= 'b' then job.since = now end
  if fate == 't' then
    job.failures = job.failures + 1
    again(id, job, delay)
  elseif fate == 'l' then
    again(id, job, delay)
  else
    give_back(q, id, job, now, service)
    is_given_back = true
    return
  end
  save_head(id, job)
end

for at = 3, #ARGV, 11 do
  local id, attempt, tenant = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2]
  local took = tonumber(ARGV[at + 7])
  if took > 0 then learned = learned == 0 and took or learned + floor((took - learned) / 8) end
  slots[#slots + 1] = ARGV[at + 3]
  if has_tenants then
    held[tenant] = held[tenant] or {}
    table.insert(held[tenant], id .. '.' .. attempt)
  end
  local job = read_head(id)
  lines[job and job.line or tenant] = tenant
  if job and job.state == 'r' and job.attempt == attempt and not told[id] then
    told[id] = true
    settle(id, job, at)
  else
    late = late + 1
  end
end
if #running > 0 then call('ZREM', Q .. ':l', unpack(running)) end
for tenant, ids in pairs(held) do call('ZREM', KEYS[3] .. ':' .. tenant, unpack(ids)) end
call('ZREM', KEYS[3], unpack(slots))
purge(KEYS[3], now)
if learned ~= service then call('HSET', KEYS[2], 'service', int(learned)) end
if call('EXISTS', Q .. ':w') == 1 then
  -- Their tenants' slots are free: the lines may be tried again.
  for line, tenant in pairs(lines) do try_again(tenant, line, now) end
end
if late > 0 then tally('late', late) end

-- How fast the queue moves, measured only while work waits for the operation's capacity and is not paused: completions
-- of an idle queue show demand, not ability. What is scheduled or parked waits for something else.
local _, waiting = depths()
local h = call('HMGET', KEYS[1], 'hold', 'hold_until', 'circuit')
local hold_until = tonumber(h[2]) or 0
local state = call('HGET', KEYS[12], 'state')
local is_measured = not (h[1] == 'paused' and (hold_until == 0 or hold_until > now))
  and (not state or state == 'closed' or state == 'disabled' or not h[3] or string.sub(h[3], -2) == ' 1')
  and (call('EXISTS', Q .. ':v:0', Q .. ':v:1', Q .. ':v:2', Q .. ':v:3') > 0 or call('ZCOUNT', Q .. ':b', '-inf', int(now)) > 0)
local f = call('HMGET', Q, 'pace_at', 'pace_n', 'pace', 'spread')
local since, count, pace = tonumber(f[1]) or 0, (tonumber(f[2]) or 0) + ended, tonumber(f[3]) or 0
local spread = tonumber(f[4]) or 0
if not is_measured then
  if since > 0 then call('HSET', Q, 'pace_at', 0, 'pace_n', 0) end
elseif since == 0 or since > now then
  call('HSET', Q, 'pace_at', int(now), 'pace_n', 0)
elseif now - since < 2000000 or count == 0 then
  call('HSET', Q, 'pace_n', count)
else
  local sample = (now - since) / count
  if pace == 0 then pace, spread = sample, sample / 4 end
  spread = spread + (math.abs(sample - pace) - spread) / 4
  pace = pace + (sample - pace) / 4
  call('HSET', Q, 'pace_at', int(now), 'pace_n', 0, 'pace', int(pace), 'spread', int(spread))
end
reap(q, now)
if is_given_back then
  -- Whoever gave it back may be about to stop: the others are told.
  call('PUBLISH', ARGV[2] .. 'jobs', '=work ' .. string.match(KEYS[1], '{(.-)}') .. ' -')
end
save_queue(q, ARGV[2])
return {0, now, waiting, late}
