#!lua flags=allow-oom
-- force: a person opens or closes a circuit, or hands it back. Mirrors core/circuit.py:by_hand.
--
-- KEYS   as in limits.lua
-- ARGV   now, word ("forced-open", "disabled", "automatic"), until_us (0: until handed back), author, reason
--
-- Returns {0, now, state, generation, it moved, state before}
-- include limits
local now, word = clock(ARGV[1]), ARGV[2]
local op = load_operation(now)
if not op then return {3, now} end
local c = op.circuit
local was = CODES[standing_of(c, now)]
if word == 'forced-open' or word == 'disabled' then
  move(c, word, now, tonumber(ARGV[3]))
  redis.call('HSET', KEYS[12], 'author', ARGV[4], 'reason', ARGV[5])
elseif c.state == 'forced-open' or c.state == 'disabled' then
  -- From forced-open it is tried by probes; from disabled it counts from now on.
  move(c, c.state == 'disabled' and 'closed' or 'half-open', now)
end
return {0, now, CODES[standing_of(c, now)], c.gen, c.moved, was}
