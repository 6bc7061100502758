#!lua flags=allow-oom
-- beat: a replica lives. Who else does, whose configuration holds, who is the steward, and is this the same store?
--
-- KEYS (all carry the hash tag of the cluster):
--   1 replicas  zset    replica -> its last beat, us
--   2 facts     hash    replica -> "version format started facts", facts as JSON
--   3 config    hash    version (in force), edition (grows when the version changes)
--   4 steward   hash    replica, until, term (grows with each election), since
--   5 named     zset    operation -> when a living replica last said that its files name it, us
--   6 epoch     string  made once in the life of a store
--   7 schema    string  the format in which keys are written
-- ARGV   now ("" asks the store), replica, version, newest format it knows, facts, epoch that it knows ("" none), epoch
--        to make if there is none, count of replicas that it knows to have ended, these, then names of its operations
--
-- Returns {code, now, epoch, live, differing, version in force, edition, steward, term, since, format}; code is 0, or 4
-- when the format is newer than the replica: then nothing was written.
local BEAT_GONE, STEWARD_LEASE, KEEP_MS = 5000000, 3000000, 86400000
local function int(number) return string.format('%.0f', number) end
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local replica, version, known_format, known_epoch = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[6]

-- 1. Keys that we would misread are left alone.
local format = tonumber(redis.call('GET', KEYS[7]) or 0)
if format > known_format then return {4, now, '', 0, 0, '', 0, '', 0, 0, format} end

-- 2. The epoch is made once. That a replica knows another one is told by the reply.
local epoch = redis.call('GET', KEYS[6])
if not epoch then
  epoch = ARGV[7]
  redis.call('SET', KEYS[6], epoch)
end

-- 3. Beats lapse; those of before the clock went back as well. When nobody could beat, because the store was away, all
-- get their time again: else the first to come back would take itself for the only one.
local newest = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
if known_epoch == epoch and newest and math.abs(now - tonumber(newest)) > BEAT_GONE then
  for _, other in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do redis.call('ZADD', KEYS[1], int(now), other) end
end
local ended = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', int(now - BEAT_GONE))
for _, other in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. int(now + BEAT_GONE), '+inf')) do
  ended[#ended + 1] = other
end
local first_name = 9 + tonumber(ARGV[8])
for at = 9, first_name - 1 do ended[#ended + 1] = ARGV[at] end
local steward = redis.call('HMGET', KEYS[4], 'replica', 'until', 'term', 'since')
for _, other in ipairs(ended) do
  redis.call('ZREM', KEYS[1], other)
  redis.call('HDEL', KEYS[2], other)
  if other == steward[1] then steward[2] = 0 end
end
local before = redis.call('HGET', KEYS[2], replica)
local started = before and string.match(before, '^%S+ %S+ (%S+)') or int(now)
redis.call('ZADD', KEYS[1], int(now), replica)
redis.call('HSET', KEYS[2], replica, version .. ' ' .. known_format .. ' ' .. started .. ' ' .. ARGV[5])
redis.call('PEXPIRE', KEYS[1], KEEP_MS)
redis.call('PEXPIRE', KEYS[2], KEEP_MS)
for at = first_name, #ARGV do redis.call('ZADD', KEYS[5], int(now), ARGV[at]) end

-- 4. The configuration that most of the living run is in force; when two are run by as many, the one that is.
local live = redis.call('ZRANGE', KEYS[1], 0, -1)
local counts, all_know = {}, known_format
for _, other in ipairs(live) do
  local its, knows = string.match(redis.call('HGET', KEYS[2], other) or '', '^(%S+) (%d+)')
  if its then
    counts[its], all_know = (counts[its] or 0) + 1, math.min(all_know, tonumber(knows))
  end
end
local config = redis.call('HMGET', KEYS[3], 'version', 'edition')
local in_force, edition = config[1], tonumber(config[2])
local best, most = in_force, counts[in_force] or 0
for its, count in pairs(counts) do
  if count > most or (count == most and best ~= in_force and its < best) then best, most = its, count end
end
-- Counters begin with the time: after a loss they must not repeat what policies in other slots remember.
if best ~= in_force then
  in_force, edition = best, edition and edition + 1 or math.floor(now / 1000000)
  redis.call('HSET', KEYS[3], 'version', in_force, 'edition', int(edition))
end

-- 5. One steward, until its lease runs out or its beats lapse.
local holder, until_us, term, since = steward[1], tonumber(steward[2]) or 0, tonumber(steward[3]), steward[4]
if until_us <= now then
  holder, since, term = replica, int(now), term and term + 1 or math.floor(now / 1000000)
end
if holder == replica then
  redis.call('HSET', KEYS[4], 'replica', replica, 'until', int(now + STEWARD_LEASE), 'term', int(term), 'since', since)
  -- 6. It raises the format when all of the living know the new one; in an empty store anybody writes the first.
  if all_know > format then format = all_know end
elseif format == 0 then
  format = known_format
end
redis.call('SET', KEYS[7], int(format))
return {0, now, epoch, #live, #live - (counts[in_force] or 0), in_force, edition, holder, term, tonumber(since), format}
