#!lua flags=allow-oom
-- keep: a direct call with an idempotency key has ended.
--
-- KEYS   as in limits.lua and queue.lua
-- ARGV   now, then per call: job id, lease id, caller, tenant, key, outcome (k kept, r released, u unknown), result
--
-- Only while the key is still this call's. Returns {0, now}
-- include limits
-- include queue
local now = clock(ARGV[1])
local q = load_queue()
local window = int(max(1, floor(q.window / 1000)))
for at = 2, #ARGV, 7 do
  local id, key, outcome = ARGV[at], key_of(ARGV[at + 2], ARGV[at + 4]), ARGV[at + 5]
  local state, owner, _, fingerprint = string.match(call('GET', key) or '', '^(%S) (%S+) (%S+) (%S+)$')
  if state == 'd' and owner == id then
    if outcome == 'r' then
      call('DEL', key)
    elseif outcome == 'u' then
      call('SET', key, 'u ' .. id .. ' - ' .. fingerprint, 'PX', window)
    else
      local job = {state = 'c', band = 2, attempt = 1, failures = 0, lost = 0, suspect = 0, first = now, since = now,
        reason = '-', accepted = now, deadline = now, expiry = 0, cost = 1, caller = ARGV[at + 2], tenant = ARGV[at + 3],
        line = ARGV[at + 3], key = ARGV[at + 4], callback = '-'}
      if q.keep > 0 then
        local text = text_of(job, ARGV[at + 6])
        call('SET', Q .. ':j:' .. id, text)
        call('ZADD', Q .. ':r', int(now + q.keep), id)
        tally('bytes', #text)
        tally('result_bytes', #text)
      end
      call('SET', key, 'k ' .. id .. ' - ' .. fingerprint, 'PX', window)
    end
  end
end
reap(q, now)
save_queue(q, '')
return {0, now}
