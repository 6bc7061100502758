#!lua flags=allow-oom
-- show: one job, and where it stands.
--
-- KEYS   as in limits.lua and queue.lua
-- ARGV   now, job id, replica that wants to hear of its end ("" none)
--
-- Returns {0, now, text ("" unknown), due (0 not scheduled), last answer, ahead, jobs waiting, limits text,
--          mean service us, pace, spread, is held, ahead if nobody's line runs dry, ahead in its own line, note...}
-- include limits
-- include queue
local now, id, replica = clock(ARGV[1]), ARGV[2], ARGV[3]
local op = load_operation(now)
if not op then return {3, now} end
local q = load_queue()
local text = call('GET', Q .. ':j:' .. id) or ''
local job = parse(text)
if not job then return {0, now, '', 0, '', 0, 0, '', 0, 0, 0, 0, 0, 0} end
local is_waiting = job.state == 'q' or job.state == 'w'
if replica ~= '' and (is_waiting or job.state == 'r') then
  local others = call('HGET', Q .. ':y', id)
  if not (others and string.find(others, replica, 1, true)) then
    call('HSET', Q .. ':y', id, others and others .. ' ' .. replica or replica)
  end
  call('PEXPIRE', Q .. ':y', 300000)
end

-- Jobs ahead by the fair order: its rank in its line, what other lines may send in the meantime, and higher bands.
local LINES_MAX, SHARES = 200, {[0] = 8, [1] = 8, [2] = 4, [3] = 1}
local function ahead_of()
  local bands = depths()
  local rank = call('ZRANK', Q .. ':t:' .. job.band .. ':' .. job.line, id)
  if not rank then return 0, 0, 0 end
  local _, suffix = group_of(job.line)
  local lines = Q .. ':v:' .. job.band .. suffix
  local own, ahead = weight_of(q, job.tenant), rank
  if suffix ~= '' or call('ZCARD', lines) > LINES_MAX then
    ahead = max(rank, bands[job.band] - 1)
  else
    for _, line in ipairs(call('ZRANGE', lines, 0, LINES_MAX - 1)) do
      if line ~= job.line then
        local turns = math.ceil((rank + 1) * weight_of(q, string.match(line, '^[^~]*')) / own)
        ahead = ahead + min(call('ZCARD', Q .. ':t:' .. job.band .. ':' .. line), turns)
      end
    end
    ahead = min(ahead, max(rank, bands[job.band] - 1))
  end
  local within = ahead + 1
  for higher = 0, job.band - 1 do
    local turns = higher == 0 and bands[0] or math.ceil(within * SHARES[higher] / SHARES[job.band])
    ahead = ahead + min(bands[higher], turns)
  end
  local above = 0
  for higher = 0, job.band - 1 do above = above + bands[higher] end
  return ahead, above + rank + max(1, call('ZCARD', lines)) * (rank + 1), rank
end

local ahead, late, rank = 0, 0, 0
if job.state == 'q' then ahead, late, rank = ahead_of() end
local _, waiting = depths()
local f = call('HMGET', Q, 'pace', 'spread')
local out = {0, now, text, tonumber(call('ZSCORE', Q .. ':d', id) or 0), call('GET', Q .. ':o:' .. id) or '',
  ahead, waiting, op.text, op.service, tonumber(f[1]) or 0, tonumber(f[2]) or 0,
  held_for(op, now), late, rank}
for _, note in ipairs(call('LRANGE', Q .. ':h:' .. id, 0, -1)) do out[#out + 1] = note end
return out
