-- turn: whose turn is it among the jobs? Mirrors core/fairness.py. Stands behind limits.lua and queue.lua.
--
-- Bands: critical first; the others share by weight. A band whose next job has waited for more than half of its
-- promise counts as the next higher. In a band the line with the lowest tag is served; its tag moves by cost / weight.
local SHARES, BAND_TAG = {[1] = 8, [2] = 4, [3] = 1}, 840
local turn = {nexts = {}, served = {}}

local function load_turn()
  local f = call('HMGET', Q, 'bvt', 'bt1', 'bt2', 'bt3')
  turn.virtual, turn.tags = tonumber(f[1]) or 0, {}
  for band = 1, 3 do turn.tags[band] = tonumber(f[band + 1]) or 0 end
end

-- The line of a band whose turn it is, and its first job; false when none could start.
local function next_of(band, suffix)
  local name = band .. suffix
  if turn.nexts[name] == nil then
    local found = call('ZRANGE', Q .. ':v:' .. name, 0, 0, 'WITHSCORES')
    local following = false
    if found[1] then
      local first = call('ZRANGE', Q .. ':t:' .. band .. ':' .. found[1], 0, 0, 'WITHSCORES')
      following = {line = found[1], score = tonumber(found[2]), id = first[1], deadline = tonumber(first[2])}
      following.accepted = first[1] and tonumber(call('ZSCORE', Q .. ':g:' .. band, first[1]) or nil)
    end
    turn.nexts[name] = following
  end
  return turn.nexts[name]
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

-- 4, 5. The job is taken out of its line, and the tags of line and band move on.
local function serve(q, band, class, line, id, job)
  local _, suffix = group_of(line)
  local name, key = band .. suffix, Q .. ':t:' .. band .. ':' .. line
  local tag = floor(turn.nexts[name].score / SEQ)
  q.vtimes[name], turn.served[name] = max(vtime(q, band, suffix), tag), true
  local after = tag + max(1, floor(job.cost * TAG / weight_of(q, job.tenant)))
  call('ZREM', key, id)
  if call('EXISTS', key) == 1 then
    call('ZADD', Q .. ':v:' .. name, int(behind(Q .. ':v:' .. name, after)), line)
  else
    leave_turn(q, band, line, after)
  end
  if class > 0 then
    turn.virtual = max(turn.virtual, turn.tags[band])
    turn.tags[band] = turn.virtual + max(1, floor(job.cost * BAND_TAG / SHARES[class]))
  end
  turn.nexts[name] = nil
end

-- 7. Blocked by its own tenant's cap: the line steps aside and blocks nobody.
local function park_line(q, band, line, due)
  local _, suffix = group_of(line)
  leave_turn(q, band, line, floor(turn.nexts[band .. suffix].score / SEQ))
  call('ZADD', Q .. ':w', int(due), band .. ' ' .. line)
  turn.nexts[band .. suffix] = nil
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
    if call('EXISTS', Q .. ':t:' .. name:gsub(' ', ':', 1)) == 1 then join_turn(q, tonumber(band), line, false) end
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
