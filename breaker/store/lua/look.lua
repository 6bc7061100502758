#!lua flags=no-writes
-- look: the operation's numbers for gauges and the catalogue; changes nothing.
--
-- KEYS   as in limits.lua
-- ARGV   now
--
-- Returns {0, now, limits text, file text, version, in use, calls waiting, started, wanted, service_us,
--          quota limit (-1 none), quota used, source, stated limits, circuit: state, generation, since, until, author,
--          reason, pause until, override until, hold ("" none), hold until, override author, reason, since}
--          where source is file, schedule or override; of an override that has ended nothing is told
-- include limits
local function text_of(limits)
  local head = limits.limit and string.format('%.0f %.0f %.0f %.0f', limits.limit, limits.period, limits.interval, limits.burst)
    or '- - - -'
  return head .. ' ' .. (limits.concurrency and int(limits.concurrency) or '-')
end

local now = clock(ARGV[1])
local op = load_operation(now)
if not op then return {3, now} end
local p = redis.call('HMGET', KEYS[1], 'file', 'version', 'override', 'override_until', 'override_author', 'override_reason',
  'override_since')
local source, is_live = 'file', p[3] and tonumber(p[4]) > now
if is_live then source = 'override' elseif op.text ~= p[1] then source = 'schedule' end
local by = redis.call('HMGET', KEYS[12], 'author', 'reason')
local c = op.circuit
return {0, now, text_of(op.limits), p[1], p[2] or '', redis.call('ZCOUNT', KEYS[3], '(' .. int(now), int(now + LEASE)),
  redis.call('HLEN', KEYS[5]), int(op.started), int(op.wanted), int(op.service),
  op.quota or -1, op.quota_used or 0, source, op.text, CODES[standing_of(c, now)], c.gen, int(c.since), int(c.ends),
  by[1] or '', by[2] or '', int(c.pause), is_live and p[4] or '0', op.hold or '', int(op.hold_until),
  is_live and p[5] or '', is_live and p[6] or '', is_live and p[7] or '0'}
