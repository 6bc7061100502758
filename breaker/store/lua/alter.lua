#!lua flags=allow-oom
-- alter: a person changes one job. Mirrors core/job_ends.py.
--
-- KEYS   as in limits.lua and queue.lua
-- ARGV   now, wake channel prefix, operation, what (cancel, move, requeue, discard, resolve), job id, argument, result
--        move: the band; resolve: s succeeded or x dead, with its reason code behind it
--
-- Returns {0, now, 1 when it was done, state before ("" no such job)}
-- include limits
-- include queue
local now, what, id, argument = clock(ARGV[1]), ARGV[4], ARGV[5], ARGV[6]
local op = load_operation(now)
if not op then return {3, now} end
local q = load_queue()
local job = read_head(id)
if not job then return {0, now, 0, ''} end
local before, done = job.state, 0

local function leave_waiting()
  if job.state == 'w' then call('ZREM', Q .. ':d', id) else leave_line(q, id, job, now) end
end

local function leave_dead()
  call('ZREM', Q .. ':' .. job.state, id)
  call('ZREM', Q .. ':p', id)
  call('HDEL', Q .. ':p:tries', id)
  tally('bytes', -call('STRLEN', Q .. ':o:' .. id))
  call('DEL', Q .. ':o:' .. id)
end

local is_waiting, is_kept = before == 'q' or before == 'w', before == 'x' or before == 'u'
if what == 'cancel' and is_waiting then
  leave_waiting()
  count_waiting(q, job, -1)
  finish(q, id, job, 'k', '-', '', now)
  done = 1
elseif what == 'move' and is_waiting then
  if before == 'q' then leave_line(q, id, job, now) end
  job.band, job.since = tonumber(argument), now
  if before == 'q' then wait_in_line(q, id, job, now, false, op.service) end
  save_head(id, job)
  done = 1
elseif what == 'requeue' and is_kept then
  leave_dead()
  -- Its retries begin again; it has started once, so it does not expire any more.
  job.failures, job.lost, job.suspect, job.reason, job.first, job.since = 0, 0, 0, '-', now, now
  if job.key ~= '-' then call('PEXPIRE', key_of(job.caller, job.key), 7776000000) end
  call('ZREM', Q .. ':c', id)
  call('HDEL', Q .. ':c:tries', id)
  count_waiting(q, job, 1)
  wait_in_line(q, id, job, now, false, op.service)
  save_head(id, job)
  call('PUBLISH', ARGV[2] .. 'jobs', '=work ' .. ARGV[3] .. ' -')
  done = 1
elseif what == 'discard' and is_kept then
  let_go(q, id, job, now)
  done = 1
elseif what == 'resolve' and before == 'u' then
  leave_dead()
  finish(q, id, job, string.sub(argument, 1, 1), string.sub(argument, 2, 2), ARGV[7], now)
  done = 1
end
save_queue(q, ARGV[2])
return {0, now, done, before}
