#!lua flags=allow-oom
-- enter: the steward enters what changed in the book of alerts. All of it, or nothing when it was deposed meanwhile.
--
-- KEYS (all carry the hash tag of the cluster):
--   1 steward  hash  replica, until, term, see beat.lua
--   2 alerts   hash  incident -> JSON
--   3 groups   hash  "channel group" -> when it last had a letter, us
--   4 outbox   hash  letter -> JSON
--   5 acks     hash  incident -> JSON; 6 silences  hash  id -> JSON: written by whoever was asked, ended by the steward
--   7 notes    hash  replica -> JSON: written by each replica
-- ARGV   term (of what not only the steward writes: one that is later than all), then triples: number of the key (2..7),
--        field, value ("" deletes)
--
-- Returns 1; 0 when a later term was seen, and nothing was written
local term = tonumber(redis.call('HGET', KEYS[1], 'term') or 0)
if term > tonumber(ARGV[1]) then return 0 end
for at = 2, #ARGV, 3 do
  local key = KEYS[tonumber(ARGV[at])]
  if ARGV[at + 2] == '' then
    redis.call('HDEL', key, ARGV[at + 1])
  else
    redis.call('HSET', key, ARGV[at + 1], ARGV[at + 2])
  end
end
return 1
