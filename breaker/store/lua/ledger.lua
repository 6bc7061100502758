#!lua flags=no-writes
-- ledger: where the jobs of an operation are, counted; changes nothing.
--
-- KEYS   as in limits.lua and queue.lua
-- ARGV   now, replica
--
-- Returns {0, now, text of numbers}: accepted succeeded expired cancelled discarded late, bytes results_bytes,
--   pace spread service, scheduled running dead unknown suspects callbacks probes results, given by this replica
--   (-1 unknown), hold_until hold_since, then per band: waiting, oldest accepted (0 none), its deadline; then how many
--   ever died, became unknown and were withdrawn; then limits text, hold, hold author, hold reason
-- include limits
-- include queue
local now = clock(ARGV[1])
local op = load_operation(now)
if not op then return {3, now} end
local f = call('HMGET', Q, 'accepted', 'succeeded', 'expired', 'cancelled', 'discarded', 'late', 'bytes',
  'result_bytes', 'pace', 'spread', 'dead_total', 'unknown_total', 'withdrawn')
local numbers = {}
for at = 1, 10 do numbers[at] = f[at] or '0' end
-- Withdrawn jobs were never told of: counted for themselves, so that no counter ever falls.
numbers[1] = int(tonumber(numbers[1]) - tonumber(f[13] or 0))
numbers[11] = int(op.service)
for _, set in ipairs({'d', 'l', 'x', 'u', 'z', 'c', 'p', 'r'}) do numbers[#numbers + 1] = call('ZCARD', Q .. ':' .. set) end
numbers[#numbers + 1] = call('GET', Q .. ':given:' .. ARGV[2]) or '-1'
local h = call('HMGET', KEYS[1], 'hold_since', 'hold_author', 'hold_reason')
numbers[#numbers + 1], numbers[#numbers + 2] = int(op.hold_until), h[1] or '0'
for band = 0, 3 do
  local key = Q .. ':g:' .. band
  local oldest = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  local job = oldest[1] and read_head(oldest[1])
  numbers[#numbers + 1], numbers[#numbers + 2] = call('ZCARD', key), oldest[2] and int(tonumber(oldest[2])) or '0'
  numbers[#numbers + 1] = job and int(job.deadline) or '0'
end
for at = 11, 13 do numbers[#numbers + 1] = f[at] or '0' end
return {0, now, table.concat(numbers, ' '), op.text, op.hold or '', h[2] or '', h[3] or ''}
