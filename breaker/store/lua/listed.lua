#!lua flags=no-writes
-- listed: a page of jobs in one state, by age.
--
-- KEYS   as in limits.lua and queue.lua
-- ARGV   set (g:0..3, d, l, x, u), after score, after id ("" from the beginning), limit (at most 500)
--
-- Returns {0, 0, score of the last one, then per job {id, head line}}; fewer than limit means the end
-- include limits
-- include queue
local set, score, last, limit = Q .. ':' .. ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

-- The first rank behind the last one of the page before. That one may have left, and any number share its moment
-- (invoices scheduled for the first of the month): found by halves, since members of one score are ordered by name.
local from, to = 0, 0
if last ~= '' then
  from, to = call('ZCOUNT', set, '-inf', '(' .. score), call('ZCOUNT', set, '-inf', score)
end
while from < to do
  local middle = floor((from + to) / 2)
  if call('ZRANGE', set, middle, middle)[1] > last then to = middle else from = middle + 1 end
end

local out = {0, 0, '0'}
local found = limit > 0 and call('ZRANGE', set, from, from + limit - 1, 'WITHSCORES') or {}
for at = 1, #found, 2 do
  out[3], out[#out + 1] = found[at + 1], found[at]
  out[#out + 1] = string.match(call('GETRANGE', Q .. ':j:' .. found[at], 0, 4095), '^[^\n]*')
end
return out
