-- queue: what the verbs of jobs share. Mirrors core/{queue,job_ends,fairness}.py.
-- The loader puts this text in place of the line `-- include queue`; limits.lua stands before it.
--
-- KEYS[11] q     hash    ledger (accepted, succeeded, expired, cancelled, discarded, late), bytes, result_bytes, band
--                        tags (bvt, bt1..3), pace (pace_at, pace_n, pace, spread), alone, alone_until, kept_until, help_at
-- and under its name, with ":" between (b a band 0..3, g a batch group, l a line = tenant or tenant~group):
--   j:<id>       string  a job: head line, then its payload; or its result when it has ended
--   o:<id> h:<id>        last answer of a dead or unknown job; list of notes, its history
--   t:<b>:<l>    zset    a line, by start deadline          v:<b>[:<g>]  zset  line -> tag, of lines that could start
--   f:<b>[:<g>]  zset    line -> tag when it left `v`        s:<b>[:<g>]  string virtual time of the band
--   w            zset    "<b> <l>" -> when it may be tried again: lines blocked by their tenant's own cap
--   g:<b>        zset    queued id -> accepted              d e l x u z r c p   zsets by moment: scheduled, expiring,
--                        running, dead, unknown, suspects, results, callbacks, probes
--   n nb         hash    tenant -> waiting jobs, their bytes k:<g> kb b   zset, hash, zset: members by when they need
--                        the batch to go, bytes, due of groups
--   i:<..>       string  idempotency: "state id lease fingerprint", state j job (lease "+": a repeated request was told of
--                        it), d direct, k kept, u unknown
--   y            hash    id -> replicas that wait for its end    last:<replica>  string  "number id attempt ...", the
--                        question of it that was answered last with jobs, and these
local Q = KEYS[11]
local POISON_MAX, REAP_MAX = 2, 128
-- A line's score is its tag (a job of cost 1 at weight 1 is TAG) times SEQ, and its place among those of the same tag.
local TAG, SEQ, FRONT, TURN_MS = 2520, 32768, 1024, 3600000
local SLOT_RETRY, REAP_AGAIN = 500000, 100000
local FULL_JOBS, FULL_BYTES, FULL_TENANT_JOBS, FULL_TENANT_BYTES = 8, 9, 10, 11
local ENDS = {s = 'succeeded', e = 'expired', k = 'cancelled', p = 'discarded'}
local call = redis.call

local tallies, publish_to, deleted = {}, {}, {}
local function tally(field, by) tallies[field] = (tallies[field] or 0) + by end

-- "jobs_max bytes_max tenant_jobs tenant_bytes keep_result keep_dead window once probe_us batch_items batch_bytes batch_window"
local function load_queue()
  local p = call('HMGET', KEYS[1], 'queue', 'weights')
  local q = {numbers = {}, weights = {}, vtimes = {}, weighted = p[2] == '1'}
  for word in string.gmatch(p[1] or '', '%S+') do q.numbers[#q.numbers + 1] = tonumber(word) or -1 end
  local n = q.numbers
  q.jobs_max, q.bytes_max, q.tenant_jobs, q.tenant_bytes = n[1] or 0, n[2] or 0, n[3] or -1, n[4] or -1
  q.keep, q.keep_dead, q.window, q.once, q.probe = n[5] or 0, n[6] or 0, n[7] or 0, n[8] == 1, n[9] or 0
  q.batch, q.batch_bytes, q.batch_window = n[10] or 0, n[11] or 0, n[12] or 0
  return q
end

-- The head line: what changes stands first and has a fixed width, so that it is written in place.
local function mutable(job)
  return string.format('%s %d %05d %04d %d %d %016.0f %016.0f %s ', job.state, job.band, min(job.attempt, 99999),
    min(job.failures, 9999), min(job.lost, 9), job.suspect, job.first, job.since, job.reason)
end

local HEAD = '^(%S) (%d) (%d+) (%d+) (%d) (%d) (%d+) (%d+) (%S) (%d+) (%d+) (%d+) (%d+) (%d+) (%S+) (%S+) (%S+) (%S+) ([^\n]*)\n'
local function parse(text)
  local state, band, attempt, failures, lost, suspect, first, since, reason, accepted, deadline, expiry, cost, size,
    caller, tenant, line, key, callback = string.match(text, HEAD)
  if not state then return nil end
  return {state = state, band = tonumber(band), attempt = tonumber(attempt), failures = tonumber(failures),
    lost = tonumber(lost), suspect = tonumber(suspect), first = tonumber(first), since = tonumber(since), reason = reason,
    accepted = tonumber(accepted), deadline = tonumber(deadline), expiry = tonumber(expiry), cost = tonumber(cost),
    size = tonumber(size), caller = caller, tenant = tenant, line = line, key = key, callback = callback}
end

local function read_head(id) return parse(call('GETRANGE', Q .. ':j:' .. id, 0, 4095)) end

local function save_head(id, job) call('SETRANGE', Q .. ':j:' .. id, 0, mutable(job)) end

local function fixed(job)
  return string.format('%.0f %.0f %.0f %.0f %010.0f %s %s %s %s %s\n', job.accepted, job.deadline, job.expiry, job.cost,
    job.size, job.caller, job.tenant, job.line, job.key, job.callback)
end

-- The whole text of a job; its size counts itself.
local function text_of(job, body)
  job.size = 0
  job.size = 55 + #fixed(job) + #body
  return mutable(job) .. fixed(job) .. body
end

local function key_of(caller, key) return Q .. ':i:' .. #caller .. ':' .. caller .. ':' .. key end

local function group_of(line)
  local group = string.match(line, '~(.*)$')
  return group, group and ':' .. group or ''
end

local function weight_of(q, tenant)
  if not q.weighted then return 1 end
  local known = q.weights[tenant]
  if not known then
    known = tonumber(call('HGET', KEYS[1], 'weight:' .. tenant)) or 1
    q.weights[tenant] = known
  end
  return known
end

-- The virtual time of a band: the tag of the line that was served last.
local function vtime(q, band, suffix)
  local name = band .. suffix
  if not q.vtimes[name] then
    local known = tonumber(call('GET', Q .. ':s:' .. name))
    if not known then
      local first = call('ZRANGE', Q .. ':v:' .. name, 0, 0, 'WITHSCORES')[2]
      known = first and floor(tonumber(first) / SEQ) or 0
    end
    q.vtimes[name] = known
  end
  return q.vtimes[name]
end

-- Behind the lines of the same tag: ties are broken by age, never by name.
local function behind(lines, tag)
  local low, high = tag * SEQ, tag * SEQ + SEQ - 1
  local last = call('ZREVRANGEBYSCORE', lines, int(high), int(low), 'WITHSCORES', 'LIMIT', 0, 1)[2]
  return last and min(high, tonumber(last) + 1) or low + FRONT
end

-- Before all lines of the same tag.
local function before(lines, tag)
  local low, high = tag * SEQ, tag * SEQ + SEQ - 1
  local first = call('ZRANGEBYSCORE', lines, int(low), int(high), 'WITHSCORES', 'LIMIT', 0, 1)[2]
  return first and max(low, tonumber(first) - 1) or low + FRONT
end

-- When a line that its tenant's cap blocks may be tried again. A slot comes back with an ack, which knows the lines that
-- have its tenant's name; lines of a batch key look for themselves.
local function parked_until(policy, wait, now, lease_us, line)
  if policy == TENANT_SLOTS then return now + (line and group_of(line) and SLOT_RETRY or lease_us) end
  return now + min(max(1, wait), PARK_MAX)
end

-- A line joins those that could start, not before the current virtual time: idling earns no credit.
local function join_turn(q, band, line, at_front)
  local _, suffix = group_of(line)
  local lines, left = Q .. ':v:' .. band .. suffix, Q .. ':f:' .. band .. suffix
  if not at_front and call('ZSCORE', lines, line) then return end
  local now_tag = vtime(q, band, suffix)
  local tag = max(now_tag, tonumber(call('ZSCORE', left, line) or 0))
  -- Its job did not run: the line was charged for nothing, and takes up its turn before the others.
  call('ZADD', lines, int(at_front and before(lines, now_tag) or behind(lines, tag)), line)
  if tag > now_tag then call('ZREM', left, line) end
end

-- A queued job stands in its tenant's line; ahead of it only what must start earlier. A line whose tenant's cap is known
-- to be used up (`parked_until`) blocks nobody, unless it had its place already.
local function stand(q, id, job, at_front, parked_until)
  call('ZADD', Q .. ':t:' .. job.band .. ':' .. job.line, int(job.deadline), id)
  local name = job.band .. ' ' .. job.line
  if call('ZSCORE', Q .. ':w', name) then return end
  local _, suffix = group_of(job.line)
  if parked_until and not call('ZSCORE', Q .. ':v:' .. job.band .. suffix, job.line) then
    call('ZADD', Q .. ':w', int(parked_until), name)
  else
    join_turn(q, job.band, job.line, at_front)
  end
end

-- A line without jobs leaves; what it used lately is remembered while others wait.
local function leave_turn(q, band, line, tag)
  local _, suffix = group_of(line)
  local name = band .. suffix
  call('ZREM', Q .. ':v:' .. name, line)
  if tag > vtime(q, band, suffix) then
    -- Together with the virtual time that it is measured against.
    call('SET', Q .. ':s:' .. name, int(q.vtimes[name]), 'PX', TURN_MS)
    call('ZADD', Q .. ':f:' .. name, int(tag), line)
    call('PEXPIRE', Q .. ':f:' .. name, TURN_MS)
  end
end

-- When a batch of this group is due. One that was served goes behind the other groups, also when it is full again.
local function group_due(q, group, now, is_served)
  local key = Q .. ':k:' .. group
  local count = call('ZCARD', key)
  if count == 0 then
    call('ZREM', Q .. ':b', group)
    call('HDEL', Q .. ':kb', group)
    return
  end
  local is_full = count >= q.batch or (tonumber(call('HGET', Q .. ':kb', group)) or 0) >= q.batch_bytes
  if is_full and not is_served then
    call('ZADD', Q .. ':b', 'LT', int(now), group)
  else
    local first = tonumber(call('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
    call('ZADD', Q .. ':b', int(is_full and now or min(first, now + q.batch_window)), group)
  end
end

-- The job waits from now on: counted for its tenant, its band, its batch group.
local function wait_in_line(q, id, job, now, at_front, service, parked_until)
  job.state = 'q'
  call('ZADD', Q .. ':g:' .. job.band, int(job.accepted), id)
  if job.suspect > 0 then
    call('ZADD', Q .. ':z', int(job.deadline), id)
    return
  end
  stand(q, id, job, at_front, parked_until)
  local group = group_of(job.line)
  if group then
    local due = min(job.accepted + q.batch_window, job.deadline - (service or 0))
    call('ZADD', Q .. ':k:' .. group, int(due), id)
    local bytes = call('HINCRBY', Q .. ':kb', group, int(job.size))
    if bytes >= q.batch_bytes or call('ZCARD', Q .. ':k:' .. group) >= q.batch then due = now end
    call('ZADD', Q .. ':b', 'LT', int(min(due, now + q.batch_window)), group)
  end
end

-- Counted here, and written once at the end of the step; bytes also while they have no bound, so that one that is set
-- later finds them right.
local waits = {}
local function count_waiting(q, job, by)
  local own = waits[job.tenant] or {jobs = 0, bytes = 0}
  own.jobs, own.bytes = own.jobs + by, own.bytes + by * job.size
  waits[job.tenant] = own
end

local function waiting_of(tenant)
  local own = waits[tenant]
  return (tonumber(call('HGET', Q .. ':n', tenant)) or 0) + (own and own.jobs or 0),
    (tonumber(call('HGET', Q .. ':nb', tenant)) or 0) + (own and own.bytes or 0)
end

-- A waiting job leaves its line, whatever becomes of it. `tag` moves only when it was its turn.
local function leave_line(q, id, job, now)
  call('ZREM', Q .. ':g:' .. job.band, id)
  if call('ZREM', Q .. ':z', id) == 1 then return end
  local line = Q .. ':t:' .. job.band .. ':' .. job.line
  call('ZREM', line, id)
  local group, suffix = group_of(job.line)
  if call('EXISTS', line) == 0 then
    call('ZREM', Q .. ':w', job.band .. ' ' .. job.line)
    local score = call('ZSCORE', Q .. ':v:' .. job.band .. suffix, job.line)
    if score then leave_turn(q, job.band, job.line, floor(tonumber(score) / SEQ)) end
  end
  if group then
    call('ZREM', Q .. ':k:' .. group, id)
    call('HINCRBY', Q .. ':kb', group, int(-job.size))
    group_due(q, group, now)
  end
end

-- A slot of a tenant's came back: its lines that wait for one may be tried again. Those of a batch key only if they are
-- named here; the others look for themselves.
local function try_again(tenant, line, now)
  for band = 0, 3 do
    call('ZADD', Q .. ':w', 'XX', int(now), band .. ' ' .. tenant)
    if line ~= tenant then call('ZADD', Q .. ':w', 'XX', int(now), band .. ' ' .. line) end
  end
end

-- A leased job did not run: to the front, and as if this attempt had not been.
local function give_back(q, id, job, now, service)
  local held = id .. '.' .. job.attempt
  call('ZREM', Q .. ':l', id)
  call('ZREM', KEYS[3], held)
  call('ZREM', PROBES, held)
  call('ZREM', KEYS[3] .. ':' .. job.tenant, held)
  if job.suspect == 2 then job.suspect = 1 end
  if job.first == job.since then job.first = 0 end
  if job.expiry > 0 and job.first == 0 then call('ZADD', Q .. ':e', int(job.expiry), id) end
  job.since = now
  count_waiting(q, job, 1)
  wait_in_line(q, id, job, now, true, service)
  try_again(job.tenant, job.line, now)
  save_head(id, job)
end

-- Whoever waits for this job's end is told.
local function tell_end(id)
  if publish_to.known == nil then publish_to.known = call('EXISTS', Q .. ':y') == 1 end
  if not publish_to.known then return end
  local replicas = call('HGET', Q .. ':y', id)
  if not replicas then return end
  call('HDEL', Q .. ':y', id)
  for replica in string.gmatch(replicas, '%S+') do
    publish_to[replica] = (publish_to[replica] or '=ended') .. ' ' .. id
  end
end

-- The one visible end. A job that a person may still need keeps its payload; others keep their result.
local function finish(q, id, job, state, reason, result, now)
  job.state, job.reason, job.since = state, reason, now
  if job.expiry > 0 then call('ZREM', Q .. ':e', id) end
  local key, living = Q .. ':j:' .. id, job.size
  if state == 'x' or state == 'u' then
    tally(state == 'x' and 'dead_total' or 'unknown_total', 1)
    save_head(id, job)
    call('ZADD', Q .. ':' .. state, int(now), id)
    if result ~= '' then
      call('SET', Q .. ':o:' .. id, result)
      tally('bytes', #result)
    end
  else
    tally(ENDS[state], 1)
    if q.keep > 0 or job.callback ~= '-' then
      local text = text_of(job, result)
      call('SET', key, text)
      call('ZADD', Q .. ':r', int(now + q.keep), id)
      tally('bytes', #text - living)
      tally('result_bytes', #text)
    else
      deleted[#deleted + 1], deleted[#deleted + 2] = key, Q .. ':h:' .. id
      tally('bytes', -living)
    end
  end
  if job.key ~= '-' then call('PEXPIRE', key_of(job.caller, job.key), int(max(1, floor(q.window / 1000)))) end
  if job.callback ~= '-' then call('ZADD', Q .. ':c', int(now), id) end
  tell_end(id)
end

-- A dead or unknown job is given up, by a person or by time.
local function let_go(q, id, job, now)
  local answer = call('STRLEN', Q .. ':o:' .. id)
  call('ZREM', Q .. ':' .. job.state, id)
  call('ZREM', Q .. ':p', id)
  call('HDEL', Q .. ':p:tries', id)
  call('DEL', Q .. ':o:' .. id)
  tally('bytes', -answer)
  finish(q, id, job, 'p', job.reason, '', now)
end

-- What has had its time goes, a bounded number a call: results also when they take more than half of the room. Whether
-- more was due than that.
local function reap(q, now)
  local is_more = true
  local results = (tonumber(call('HGET', Q, 'result_bytes')) or 0) + (tallies.result_bytes or 0)
  for step = 1, REAP_MAX do
    local oldest = call('ZRANGE', Q .. ':r', 0, 0, 'WITHSCORES')
    if not oldest[1] or (tonumber(oldest[2]) > now and results <= q.bytes_max / 2) then
      is_more = false
      break
    end
    local size = call('STRLEN', Q .. ':j:' .. oldest[1])
    if call('ZSCORE', Q .. ':c', oldest[1]) then
      -- Its end is still to be told: the record waits for that.
      call('ZADD', Q .. ':r', int(now + 3600000000), oldest[1])
    else
      call('DEL', Q .. ':j:' .. oldest[1], Q .. ':h:' .. oldest[1])
      call('ZREM', Q .. ':r', oldest[1])
      tally('bytes', -size)
      tally('result_bytes', -size)
      results = results - size
    end
  end
  if q.keep_dead > 0 then
    for _, set in ipairs({'x', 'u'}) do
      for _, id in ipairs(call('ZRANGEBYSCORE', Q .. ':' .. set, '-inf', int(now - q.keep_dead), 'LIMIT', 0, 4)) do
        local job = read_head(id)
        if job then let_go(q, id, job, now) else call('ZREM', Q .. ':' .. set, id) end
      end
    end
  end
  return is_more
end

-- Waiting jobs: per band, and in all with those that are scheduled.
local function depths()
  local bands, all = {}, call('ZCARD', Q .. ':d')
  for band = 0, 3 do
    bands[band] = call('ZCARD', Q .. ':g:' .. band)
    all = all + bands[band]
  end
  return bands, all
end

local function save_queue(q, prefix)
  for field, by in pairs(tallies) do
    if by ~= 0 then call('HINCRBY', Q, field, int(by)) end
  end
  for tenant, own in pairs(waits) do
    if own.jobs ~= 0 or own.bytes ~= 0 then
      if call('HINCRBY', Q .. ':n', tenant, own.jobs) > 0 then
        call('HINCRBY', Q .. ':nb', tenant, int(own.bytes))
      else
        call('HDEL', Q .. ':n', tenant)
        call('HDEL', Q .. ':nb', tenant)
      end
    end
  end
  for from = 1, #deleted, 1000 do call('DEL', unpack(deleted, from, min(from + 999, #deleted))) end
  publish_to.known = nil
  for replica, message in pairs(publish_to) do call('PUBLISH', prefix .. replica, message) end
end
