-- turn: whose turn is it among the jobs? Mirrors core/fairness.py. Stands behind limits.lua and queue.lua.
--
-- Bands: critical first; the others share by weight. A band whose next job has waited for more than half of its
-- promise counts as the next higher. In a band the line with the lowest tag is served; its tag moves by cost / weight.
local SHARES, BAND_TAG = {[1] = 8, [2] = 4, [3] = 1}, 840
-- What a step changes in the lines is remembered here and written once, by `save_lines`: a lease of 64 jobs of one
-- tenant moves its line 64 times, and writes it once.
local turn = {bands = {}, lines = {}, places = {}, served = {}, most = 1}
local CHUNK, URGENT = 16, 15

local function load_turn(most)
  local f = call('HMGET', Q, 'bvt', 'bt1', 'bt2', 'bt3')
  turn.virtual, turn.tags, turn.most = tonumber(f[1]) or 0, {}, min(most, 64)
  for band = 1, 3 do turn.tags[band] = tonumber(f[band + 1]) or 0 end
end

local function save_lines()
  for key, line in pairs(turn.lines) do
    if #line.taken > 0 then call('ZREM', key, unpack(line.taken)) end
  end
  for name, band in pairs(turn.bands) do
    if #band.gone > 0 then call('ZREM', Q .. ':v:' .. name, unpack(band.gone)) end
    local moved, left = {}, {}
    for line, score in pairs(band.moved) do
      moved[#moved + 1], moved[#moved + 2] = int(score), line
    end
    for line, tag in pairs(band.left) do
      left[#left + 1], left[#left + 2] = int(tag), line
    end
    if #moved > 0 then call('ZADD', Q .. ':v:' .. name, unpack(moved)) end
    if #left > 0 then
      call('ZADD', Q .. ':f:' .. name, unpack(left))
      call('PEXPIRE', Q .. ':f:' .. name, TURN_MS)
    end
  end
  turn.bands, turn.lines, turn.places = {}, {}, {}
end

-- The first lines of a band in their order; `bound`: beyond this score there are others.
local function lines_of(name)
  local found = call('ZRANGE', Q .. ':v:' .. name, 0, turn.most, 'WITHSCORES')
  local band = {order = {}, gone = {}, moved = {}, left = {}}
  for at = 1, #found, 2 do band.order[#band.order + 1] = {line = found[at], score = tonumber(found[at + 1])} end
  if #band.order > turn.most then band.bound = band.order[#band.order].score end
  turn.bands[name] = band
  return band
end

-- The next jobs of a line; they are read in one go when there is no other line beside it.
local function jobs_of(key, is_only)
  local line = turn.lines[key]
  if not line then
    line = {taken = {}, ids = {}, deadlines = {}, texts = {}, at = 1, count = call('ZCARD', key)}
    turn.lines[key] = line
  end
  if line.at > #line.ids and #line.taken < line.count then
    local from = #line.taken
    local found = call('ZRANGE', key, from, from + (is_only and min(turn.most, CHUNK) or 1) - 1, 'WITHSCORES')
    local keys = {}
    line.ids, line.deadlines, line.at = {}, {}, 1
    for at = 1, #found, 2 do
      line.ids[#line.ids + 1], line.deadlines[#line.deadlines + 1] = found[at], tonumber(found[at + 1])
      keys[#keys + 1] = Q .. ':j:' .. found[at]
    end
    line.texts = #keys > 0 and call('MGET', unpack(keys)) or {}
  end
  return line
end

local function load_first(entry, band, is_only)
  local line = jobs_of(Q .. ':t:' .. band .. ':' .. entry.line, is_only)
  entry.id, entry.deadline, entry.text = line.ids[line.at], line.deadlines[line.at], line.texts[line.at]
  entry.job = entry.text and parse(entry.text)
  entry.accepted = entry.job and entry.job.accepted
end

-- The line of a band whose turn it is, and its first job; false when none could start.
local function next_of(band, suffix)
  local name = band .. suffix
  local known = turn.bands[name]
  local first = known and known.order[1]
  if not known or (known.bound and (not first or first.score > known.bound)) then
    if known then save_lines() end
    known = lines_of(name)
    first = known.order[1]
  end
  if not first then return false end
  if not first.job then load_first(first, band, #known.order == 1) end
  return first
end

-- Behind the lines of the same tag, those that this step put there included.
local function place_behind(name, tag)
  local band, low, high = turn.bands[name], tag * SEQ, tag * SEQ + SEQ - 1
  if not band.bound then
    local last
    for at = #band.order, 1, -1 do
      local score = band.order[at].score
      if score < low then break end
      if score <= high then
        last = score
        break
      end
    end
    return last and min(high, last + 1) or low + FRONT
  end
  local key = name .. ' ' .. tag
  turn.places[key] = turn.places[key] and min(turn.places[key] + 1, high) or behind(Q .. ':v:' .. name, tag)
  return turn.places[key]
end

-- 2. The band whose turn it is among those that have a line, and the class that it counts as.
local function pick_band(suffix, now)
  local best, best_class, best_rank
  for band = 0, 3 do
    local following = next_of(band, suffix)
    if following then
      local accepted = following.accepted or now
      local is_aged = band > 0 and 2 * now > accepted + (following.deadline or 9e15)
      local class = is_aged and band - 1 or band
      -- 3. A band that had nothing to start is not owed for that time.
      local rank = class == 0 and accepted or max(turn.tags[band], turn.virtual)
      local is_better = not best or (class == 0 and best_class > 0)
        or ((class == 0) == (best_class == 0) and rank < best_rank)
      if is_better then best, best_class, best_rank = band, class, rank end
    end
  end
  return best, best_class
end

-- Of the lines that stand first in each band, the one whose job has the earliest deadline; it is put before the others.
local function pick_urgent(suffix, now)
  local best, class, urgent, place
  for band = 0, 3 do
    local order = next_of(band, suffix) and turn.bands[band .. suffix].order or {}
    for at = 1, min(#order, URGENT + 1) do
      local entry = order[at]
      if not entry.job then load_first(entry, band, false) end
      if entry.job and (not urgent or entry.deadline < urgent) then
        best, urgent, place = band, entry.deadline, at
        local is_aged = band > 0 and 2 * now > entry.accepted + entry.deadline
        class = is_aged and band - 1 or band
      end
    end
  end
  if best then
    local order = turn.bands[best .. suffix].order
    table.insert(order, 1, table.remove(order, place))
  end
  return best, class
end

-- The line that is served goes to its new place; those behind it are in order.
local function move_line(band, score)
  local order, first = band.order, table.remove(band.order, 1)
  local at = #order
  while at > 0 and order[at].score > score do at = at - 1 end
  table.insert(order, at + 1, {line = first.line, score = score})
  band.moved[first.line] = score
end

local function drop_line(q, name, tag)
  local band = turn.bands[name]
  local line = table.remove(band.order, 1).line
  band.gone[#band.gone + 1], band.moved[line] = line, nil
  if tag > q.vtimes[name] then band.left[line] = tag end
end

-- 4, 5. The job is taken out of its line, and the tags of line and band move on.
local function serve(q, band, class, line, id, job)
  local _, suffix = group_of(line)
  local name = band .. suffix
  local jobs = turn.lines[Q .. ':t:' .. band .. ':' .. line]
  local tag = floor(turn.bands[name].order[1].score / SEQ)
  q.vtimes[name], turn.served[name] = max(vtime(q, band, suffix), tag), true
  local after = tag + max(1, floor(job.cost * TAG / weight_of(q, job.tenant)))
  jobs.taken[#jobs.taken + 1], jobs.at = id, jobs.at + 1
  if #jobs.taken < jobs.count then
    move_line(turn.bands[name], place_behind(name, after))
  else
    drop_line(q, name, after)
  end
  if class > 0 then
    turn.virtual = max(turn.virtual, turn.tags[band])
    turn.tags[band] = turn.virtual + max(1, floor(job.cost * BAND_TAG / SHARES[class]))
  end
end

-- 7. Blocked by its own tenant's cap: the line steps aside and blocks nobody.
local function park_line(q, band, line, due)
  local _, suffix = group_of(line)
  local name = band .. suffix
  local tag = floor(turn.bands[name].order[1].score / SEQ)
  if tag > vtime(q, band, suffix) then call('SET', Q .. ':s:' .. name, int(q.vtimes[name]), 'PX', TURN_MS) end
  drop_line(q, name, tag)
  call('ZADD', Q .. ':w', int(due), band .. ' ' .. line)
end

-- Lines whose time has come; also those whose time lies further ahead than any can: the clock went back.
local function unpark_lines(q, now)
  local due = call('ZRANGEBYSCORE', Q .. ':w', '-inf', int(now), 'LIMIT', 0, 16)
  for _, name in ipairs(call('ZRANGEBYSCORE', Q .. ':w', '(' .. int(now + PARK_MAX), '+inf', 'LIMIT', 0, 16)) do
    due[#due + 1] = name
  end
  for _, name in ipairs(due) do
    local band, line = string.match(name, '^(%d) (.*)$')
    call('ZREM', Q .. ':w', name)
    if call('EXISTS', Q .. ':t:' .. name:gsub(' ', ':', 1)) == 1 then
      join_turn(q, tonumber(band), line, false)
      -- A batch key whose lines were all parked was put off.
      local group = group_of(line)
      if group then group_due(q, group, now) end
    end
  end
end

-- Virtual times of the bands that were served; where nobody is left, the counting begins again.
local function save_turn(q)
  if next(turn.served) then
    call('HSET', Q, 'bvt', int(turn.virtual), 'bt1', int(turn.tags[1]), 'bt2', int(turn.tags[2]), 'bt3', int(turn.tags[3]))
  end
  for name in pairs(turn.served) do
    if call('EXISTS', Q .. ':v:' .. name) == 1 or call('EXISTS', Q .. ':w') == 1 then
      call('SET', Q .. ':s:' .. name, int(q.vtimes[name]), 'PX', TURN_MS)
      local old = call('ZRANGEBYSCORE', Q .. ':f:' .. name, '-inf', int(q.vtimes[name]), 'LIMIT', 0, 64)
      if #old > 0 then call('ZREM', Q .. ':f:' .. name, unpack(old)) end
    else
      call('DEL', Q .. ':s:' .. name, Q .. ':f:' .. name)
    end
  end
end
