-- The rules, as functions: the counterpart of `core`, the same decisions on sorted sets and hashes. They follow head.lua, and in
-- scripts with a short way for plain jobs that short way, so that it does not pay for what it does not use.
-- KEYS and ARGV as there.
local SCHEDULED, AVAILABLE, IS_RUNNING, RETRYABLE, COMPLETE, CANCEL, DISCARD = 0, 1, 2, 3, 4, 5, 6
local ENQUEUED, PROMOTED, CLAIMED, DONE, RETRYING, RESCUED, RELEASED, CANCEL_ASKED, WAS_CANCELLED, WAS_DISCARDED, RETRIED,
  PRUNED = '\0', '\1', '\2', '\3', '\4', '\5', '\6', '\7', '\8', '\9', '\10', '\11'
-- Added to the state of a finished job that keeps its payload or result apart.
local APART = 128
local SETS = {[COMPLETE] = COMPLETED, [CANCEL] = CANCELLED, [DISCARD] = DISCARDED}
local CHANGE = {[COMPLETE] = DONE, [CANCEL] = WAS_CANCELLED, [DISCARD] = WAS_DISCARDED}

local FIELDS = {'number', 'grant', 'turn', 'live', 'bytes', 'retryable', 'finished', 'kept', 'place', 'next', 'paused', 'waiting',
  'answers', 'forgotten', E_SLOT, F_SLOT}
-- `save` writes back what changed.
local meta = {}
for i = 1, 16 do meta[FIELDS[i]] = tonumber(loaded[i] or 0) end
if not loaded[10] then meta.next = NEVER end
local next_before = meta.next
local enqueued, ended = 0, 0

local function id_of(number) return pack('>I6', number) end
local function number_of(id) return (parse('>I6', id)) end
local function due_at(at) if at < meta.next then meta.next = at end end
local function next_turn() meta.turn = meta.turn + 1; return meta.turn end

-- What happened, as segments of equal changes; an item is the id and the attempt in 2 bytes.
local log, logged, segment = {}, 0, nil
local function note(change, id, attempt)
  if not segment or segment.change ~= change then
    segment = {change = change}
    log[#log + 1] = segment
  end
  logged = logged + 1
  segment[#segment + 1] = id .. attempt
end

-- Calls a command that takes many items without handing the interpreter more than it can take.
local function each(command, key, list, step)
  local n = #list
  for from = 1, n, step or 1000 do
    call(command, key, unpack(list, from, math.min(from + (step or 1000) - 1, n)))
  end
end
local function fetch(command, key, list)
  if #list <= 1000 then return #list > 0 and call(command, key, unpack(list)) or {} end
  local all = {}
  for from = 1, #list, 1000 do
    local some = call(command, key, unpack(list, from, math.min(from + 999, #list)))
    for i = 1, #some do all[from + i - 1] = some[i] end
  end
  return all
end

-- Records -----------------------------------------------------------------------------------------------------------

-- The parts of a record that is more than plain; see record.rs for the layout. Fails when they are not there.
local function options(record)
  local flags, priority = byte(record, 7, 8)
  local o, at = {flags = flags, priority = priority, timeout = HALF_HOUR, retention = DAY, attempts = 4, base = 1000, cap = 300000,
    data = 0}, 9
  if flags >= 32 then
    o.run_at, at = parse('>I6', record, at)
    flags = flags - 32
  end
  if flags % 2 == 1 then
    o.timeout, o.retention, o.attempts, o.base, o.cap, at = parse('>I5I5I2I4I4', record, at)
  end
  if flags % 4 >= 2 then
    o.expires_at = at
    local after
    after, at = parse('>I6', record, at)
    o.expires = after > 0 and parse('>I6', record) + after or nil
  end
  if flags % 8 >= 4 then
    o.lane = sub(record, at, at + 7)
    at = at + 8
  end
  local dedup = 0
  if flags % 16 >= 8 then
    local window, length
    window, length, at = parse('>I6I2', record, at)
    o.until_ = window > 0 and parse('>I6', record) + window or NEVER
    o.dedup = sub(record, at, at + length - 1)
    at, dedup = at + length, length
  end
  if flags >= 16 then
    o.data, at = parse('>I4', record, at)
    o.apart = o.data
  end
  o.kind_at = at
  at = at + 1 + byte(record, at)
  local key = 0
  if o.lane then
    o.key_at = at
    key = parse('>I2', record, at)
    at = at + 2 + key
  end
  if not o.apart then o.data = #record - at + 1 end
  o.weight = o.data + byte(record, o.kind_at) + key + dedup
  return o
end
local plain = {}
-- Most jobs are plain: what the rules must know of them is their priority. A record that is gone or that somebody spoiled
-- must not hold up the others: such a job goes its way to the dead letter set.
local function about(record)
  local flags, priority = 255, 0
  if record and #record >= 9 then flags, priority = byte(record, 7, 8) end
  if flags > 0 then
    local is_fine, o = pcall(options, record)
    if is_fine and flags < 64 then return o end
    return {flags = 0, priority = 255, timeout = HALF_HOUR, retention = DAY, attempts = 1, base = 0, cap = 0, weight = 0,
      is_damaged = true}
  end
  local o = plain[priority]
  if not o then
    o = {flags = 0, priority = priority, timeout = HALF_HOUR, retention = DAY, attempts = 4, base = 1000, cap = 300000}
    plain[priority] = o
  end
  o.weight = #record - 9
  return o
end

-- Notes: 't' what earlier attempts left, 'c' asked to be cancelled, 'r' the report of the running attempt.
local has_notes = nil
local function notes()
  if has_notes == nil then has_notes = call('EXISTS', NOTES) == 1 end
  return has_notes
end
local function tried(id)
  local t = notes() and call('HGET', NOTES, 't' .. id)
  if not t then return 0, 0, 0, '' end
  local attempt, started, since = parse('>I2I6I6', t)
  return attempt, started, since, sub(t, 15)
end
local function set_tried(id, attempt, started, since, failure)
  has_notes = true
  call('HSET', NOTES, 't' .. id, pack('>I2I6I6', attempt, started, since) .. failure)
end

-- The line and its lanes --------------------------------------------------------------------------------------------

local function lane_of(lane)
  local stored = call('HGET', LANES, lane)
  if not stored then return {turn = 0, running = 0} end
  local turn, running = parse('>I6I4', stored)
  return {turn = turn, running = running, head = #stored > 10 and sub(stored, 11) or nil, stood = turn}
end

-- Brings the line in agreement with a lane: its first job stands in it at the lane's turn, if the key is under its limit.
local function settle(lane, l)
  local first = call('ZRANGEBYLEX', WAITING, '[' .. lane, '(' .. lane .. '\255\255\255\255\255\255\255\255', 'LIMIT', 0, 1)[1]
  if not first then l.turn = 0 end
  local head = first and l.running < key_limit and sub(first, 10) or nil
  if head and l.turn == 0 then l.turn = next_turn() end
  if l.head and l.head ~= head then call('ZREM', LINE, l.head) end
  if head and (l.head ~= head or l.stood ~= l.turn) then
    call('ZADD', LINE, byte(first, 9) * TURNS + l.turn, head)
  end
  if first or l.running > 0 then
    call('HSET', LANES, lane, pack('>I6I4', l.turn, l.running) .. (head or ''))
  else
    call('HDEL', LANES, lane)
  end
end

-- Makes a job available; one that was in the line before gives its old turn.
local function enter(id, o, turn)
  if not o.lane then
    call('ZADD', LINE, o.priority * TURNS + (turn or next_turn()), id)
    return
  end
  call('ZADD', WAITING, 0, o.lane .. string.char(o.priority) .. id)
  local l = lane_of(o.lane)
  if turn and (l.turn == 0 or turn < l.turn) then l.turn = turn end
  settle(o.lane, l)
end

local function leave_line(id, o)
  if not o.lane then
    call('ZREM', LINE, id)
    return
  end
  call('ZREM', WAITING, o.lane .. string.char(o.priority) .. id)
  settle(o.lane, lane_of(o.lane))
end

-- A job stops running: its key has room for one more.
local function stop(o)
  if not o.lane then return end
  local l = lane_of(o.lane)
  l.running = l.running - 1
  settle(o.lane, l)
end

-- Finished jobs -----------------------------------------------------------------------------------------------------

-- What is to be written for the jobs that end in this call, gathered so that many cost few commands.
local gone, gone_large, finished, done = {}, {}, {}, {[COMPLETE] = {}, [CANCEL] = {}, [DISCARD] = {}}

local function forget(id, apart)
  gone[#gone + 1] = id
  if apart then
    gone_large[#gone_large + 1] = 'd' .. id
    gone_large[#gone_large + 1] = 'r' .. id
  end
end

-- Gives up what a live job holds but for its place among those of its state.
local function release_names(id, o, attempt)
  meta.live = meta.live - 1
  meta.bytes = meta.bytes - o.weight
  if o.expires and attempt == 0 then call('ZREM', EXPIRING, id) end
  if o.dedup then
    local held = call('HGET', DEDUP, o.dedup)
    if held and sub(held, 1, 6) == id then call('HDEL', DEDUP, o.dedup) end
  end
end

-- Ends a live job that has left its place. `failure` and `result` (a tagged tail, see record.rs) are kept with it.
local function finish(id, o, state, attempt, started, failure, result)
  local report = ''
  release_names(id, o, attempt)
  if notes() then
    report = call('HGET', NOTES, 'r' .. id) or ''
    call('HDEL', NOTES, 't' .. id, 'c' .. id, 'r' .. id)
  end
  ended = ended + 1
  note(CHANGE[state], id, pack('>I2', attempt))
  if o.retention == 0 then
    forget(id, o.apart or (result and byte(result) == 2))
    return
  end
  local size = o.weight + 60 + #failure
  if result then
    size = size + (byte(result) == 2 and parse('>I4', result, 2) or #result)
  end
  local apart = (o.apart or result and byte(result) == 2) and APART or 0
  finished[#finished + 1] = id
  finished[#finished + 1] = pack('>BI2I6I6I4I2I2', state + apart, attempt, started, now, size, #report, #failure) .. report
    .. failure .. (result or '\0')
  local set = done[state]
  set[#set + 1] = now + o.retention
  set[#set + 1] = id
  meta.finished, meta.kept = meta.finished + 1, meta.kept + size
  due_at(now + o.retention)
end

-- Writes what has been gathered.
local function flush()
  if #finished > 0 then
    each('HSET', ENDS, finished)
    for state, set in pairs(done) do
      if #set > 0 then each('ZADD', SETS[state], set) end
    end
    finished, done = {}, {[COMPLETE] = {}, [CANCEL] = {}, [DISCARD] = {}}
  end
  if #gone > 0 then
    each('HDEL', JOBS, gone)
    local blocks = {}
    for i = 1, #gone do
      local block = sub(gone[i], 1, 5)
      blocks[block] = (blocks[block] or 0) + 1
    end
    for block, count in pairs(blocks) do
      if call('HINCRBY', COUNTS, block, -count) <= 0 then
        call('HDEL', COUNTS, block)
        call('ZREM', BLOCKS, block)
      end
    end
    gone = {}
  end
  if #gone_large > 0 then
    each('HDEL', LARGE, gone_large)
    gone_large = {}
  end
end

-- Forgets finished jobs of one state; their records go with them.
local function prune(state, ids)
  if #ids == 0 then return end
  local ends = fetch('HMGET', ENDS, ids)
  for i = 1, #ids do
    local over = ends[i] or '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
    meta.kept = meta.kept - parse('>I4', over, 16)
    note(PRUNED, ids[i], sub(over, 2, 3))
    forget(ids[i], byte(over) >= APART)
  end
  meta.finished = meta.finished - #ids
  each('ZREM', SETS[state], ids)
  each('HDEL', ENDS, ids)
end

-- Forgets the finished jobs whose time would come first while there are too many, the dead letter set last.
local function prune_excess(budget)
  if meta.finished <= finished_max and meta.kept <= finished_bytes_max then return end
  flush()
  if meta.finished > finished_max and call('EXISTS', CANCELLED) == 0 then
    prune(COMPLETE, call('ZRANGE', COMPLETED, 0, math.min(meta.finished - finished_max, budget) - 1))
  end
  while (meta.finished > finished_max or meta.kept > finished_bytes_max) and budget > 0 do
    local first, second_ = call('ZRANGE', COMPLETED, 0, 0, 'WITHSCORES'), call('ZRANGE', CANCELLED, 0, 0, 'WITHSCORES')
    local state, id = COMPLETE, first[1]
    local a, b = tonumber(first[2]), tonumber(second_[2])
    if second_[1] and (not id or b < a or (b == a and number_of(second_[1]) < number_of(id))) then
      state, id = CANCEL, second_[1]
    end
    if not id then
      state, id = DISCARD, call('ZRANGE', DISCARDED, 0, 0)[1]
    end
    if not id then return end
    prune(state, {id})
    budget = budget - 1
  end
end

-- Attempts ----------------------------------------------------------------------------------------------------------

-- An attempt failed: again after `delay`, or, with none, to the dead letter set.
local function fail(id, o, attempt, started, failure, delay)
  stop(o)
  if notes() and call('HEXISTS', NOTES, 'c' .. id) == 1 then
    finish(id, o, CANCEL, attempt, started, failure)
  elseif not delay or attempt >= o.attempts then
    finish(id, o, DISCARD, attempt, started, failure)
  else
    if notes() then call('HDEL', NOTES, 'r' .. id) end
    set_tried(id, attempt, started, 0, failure)
    call('ZADD', DUE, now + delay, id)
    meta.retryable = meta.retryable + 1
    due_at(now + delay)
    note(RETRYING, id, pack('>I2', attempt))
  end
end

-- A wait with full jitter; `fraction` is uniform in 0 .. 2^32 - 1.
local function backoff(o, attempt, fraction)
  local ceiling = math.min(o.base * 2 ^ math.min(attempt - 1, 31), o.cap)
  return floor((ceiling + 1) * fraction / 4294967296)
end
-- Spreads the one random number of a call over its jobs (by the golden ratio, as in Fibonacci hashing).
local function next_chance()
  chance = (chance + 2654435769) % 4294967296
  return chance
end

-- What is held for a running job: attempt (2 bytes), grant (6), expiry (6), timeout (5), flags (1), weight (4), retention (5),
-- its score in the line.
local function terms_of(o) return pack('>I5BI4I5', o.timeout, o.flags, o.weight, o.retention) end
local function started_at(grant) return floor(number_of(grant) / 256) + BIRTH * 1000 end

-- Ends the attempt of a running job whose lease ran out.
local function rescue(id, held, record)
  local attempt, started, o = parse('>I2', held), started_at(sub(held, 3, 8)), about(record)
  call('HDEL', RUNNING, id)
  if notes() and call('HEXISTS', NOTES, 'c' .. id) == 1 then
    local _, _, _, failure = tried(id)
    stop(o)
    finish(id, o, CANCEL, attempt, started, failure)
  elseif started + o.timeout <= now then
    fail(id, o, attempt, started, 'timed out after ' .. string.format('%.0f', o.timeout) .. ' ms', backoff(o, attempt, next_chance()))
  elseif attempt >= o.attempts then
    fail(id, o, attempt, started,
      'lease expired on attempt ' .. attempt .. ' of ' .. o.attempts .. ': the worker died or lost contact', nil)
  else
    stop(o)
    if notes() then call('HDEL', NOTES, 'r' .. id) end
    set_tried(id, attempt, started, now, 'lease expired on attempt ' .. attempt .. ' of ' .. o.attempts)
    enter(id, o, tonumber(sub(held, 30)) % TURNS)
    note(RESCUED, id, pack('>I2', attempt))
  end
end

-- Where a live job stands.
local function state_of(id)
  if call('HEXISTS', RUNNING, id) == 1 then return IS_RUNNING end
  if call('ZSCORE', DUE, id) then
    return tried(id) > 0 and RETRYABLE or SCHEDULED
  end
  return AVAILABLE
end

-- Takes a live job that does not run out of its place; answers with its attempts so far, when the last began, and why it
-- failed.
local function leave(id, o)
  local attempt, started, _, failure = tried(id)
  if call('ZREM', DUE, id) == 1 then
    if attempt > 0 then meta.retryable = meta.retryable - 1 end
  else
    leave_line(id, o)
  end
  return attempt, started, failure
end

local SHED = 'shed: the queue was full and its policy drops waiting jobs'
-- Jobs that one call may push out: a large one must not hold up everybody while a million small ones go.
local shed_left = 500
-- Makes sure that one more job of this weight fits, by the queue's policy; answers why not.
local function make_room(weight, priority)
  while true do
    local full = meta.live >= jobs_max and 'F' or (meta.bytes + weight > bytes_max and 'B')
    if not full then return nil end
    local last = overflow > 0 and weight <= bytes_max and call('ZRANGE', LINE, -1, -1, 'WITHSCORES') or {}
    if not last[1] or shed_left == 0 then return full end
    shed_left = shed_left - 1
    local least = floor(last[2] / TURNS)
    if least < priority then return full end
    local id = last[1]
    if overflow == 1 then
      id = call('ZRANGEBYSCORE', LINE, string.format('%.0f', least * TURNS), '+inf', 'LIMIT', 0, 1)[1]
    end
    local o = about(call('HGET', JOBS, id))
    local attempt, started = leave(id, o)
    finish(id, o, DISCARD, attempt, started, SHED)
  end
end

-- What time does ----------------------------------------------------------------------------------------------------

-- Rescues the jobs of the claims whose first lease may have run out; a claim whose jobs were renewed is looked at again when
-- the first of them may run out next.
local function rescue_expired(budget)
  -- A lease that ran out long before anybody looked ran out while nobody could renew it: it is given once more.
  local slack = manual > 0 and NEVER or floor(lease_ms / 4)
  local grants = call('ZRANGEBYSCORE', EXPIRIES, '-inf', now, 'LIMIT', 0, math.max(1, budget))
  local over = {}
  for i = 1, #grants do
    local grant, ids = grants[i], {}
    local all = call('HGET', GRANTED, grant) or ''
    for at = 1, #all, 6 do ids[#ids + 1] = sub(all, at, at + 5) end
    local held, first, forgiven = fetch('HMGET', RUNNING, ids), nil, {}
    for j = 1, #ids do
      if held[j] and sub(held[j], 3, 8) == grant then
        local expiry = parse('>I6', held[j], 9)
        if expiry + slack < now then
          expiry = now + lease_ms
          forgiven[#forgiven + 1] = ids[j]
          forgiven[#forgiven + 1] = sub(held[j], 1, 8) .. pack('>I6', expiry) .. sub(held[j], 15)
        end
        if expiry > now then
          if not first or expiry < first then first = expiry end
        else
          over[#over + 1] = {at = expiry, number = number_of(ids[j]), id = ids[j], held = held[j]}
        end
      end
    end
    if #forgiven > 0 then each('HSET', RUNNING, forgiven) end
    if first then
      call('ZADD', EXPIRIES, first, grant)
    else
      call('ZREM', EXPIRIES, grant)
      call('HDEL', GRANTED, grant)
    end
    budget = budget - #ids
    if budget <= 0 then break end
  end
  table.sort(over, function(a, b) return a.at < b.at or (a.at == b.at and a.number < b.number) end)
  for i = 1, #over do
    rescue(over[i].id, over[i].held, call('HGET', JOBS, over[i].id))
  end
  return budget
end

local function promote(budget)
  local ids = call('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, budget)
  if #ids == 0 then return budget end
  each('ZREM', DUE, ids)
  local records, line = fetch('HMGET', JOBS, ids), {}
  local before
  if notes() then
    local fields = {}
    for i = 1, #ids do fields[i] = 't' .. ids[i] end
    before = fetch('HMGET', NOTES, fields)
  end
  for i = 1, #ids do
    local id, attempt = ids[i], '\0\0'
    local t = before and before[i]
    if t and sub(t, 1, 2) ~= '\0\0' then
      attempt = sub(t, 1, 2)
      meta.retryable = meta.retryable - 1
      call('HSET', NOTES, 't' .. id, sub(t, 1, 8) .. pack('>I6', now) .. sub(t, 15))
    end
    local o = about(records[i])
    if o.lane then
      if #line > 0 then each('ZADD', LINE, line); line = {} end
      enter(id, o)
    else
      line[#line + 1] = o.priority * TURNS + next_turn()
      line[#line + 1] = id
    end
    note(PROMOTED, id, attempt)
  end
  if #line > 0 then each('ZADD', LINE, line) end
  return budget - #ids
end

local EXPIRED = 'expired: it did not start in time'
local function expire_due(budget)
  local ids = call('ZRANGEBYSCORE', EXPIRING, '-inf', now, 'LIMIT', 0, budget)
  for i = 1, #ids do
    local o = about(call('HGET', JOBS, ids[i]))
    call('ZREM', EXPIRING, ids[i])
    leave(ids[i], o)
    finish(ids[i], o, DISCARD, 0, 0, EXPIRED)
  end
  return budget - #ids
end

local function prune_due(budget)
  for state = COMPLETE, DISCARD do
    if budget > 0 then
      local ids = call('ZRANGEBYSCORE', SETS[state], '-inf', now, 'LIMIT', 0, budget)
      prune(state, ids)
      budget = budget - #ids
    end
  end
  return budget
end

-- Idempotency keys: fingerprint (8 bytes), when (6), answers of 8 bytes.
local function forget_idempotency(name)
  call('ZREM', AGES, name)
  local stored = call('HGET', IDEMPOTENCY, name)
  if stored then
    meta.answers = meta.answers - (#stored - 14) / 8
    call('HDEL', IDEMPOTENCY, name)
  end
end
local function forget_old_idempotencies(budget)
  local names = call('ZRANGEBYSCORE', AGES, '-inf', now - idempotency_window, 'LIMIT', 0, budget)
  for i = 1, #names do forget_idempotency(names[i]) end
  return budget - #names
end

-- Finds out when something is due next.
local function rearm()
  meta.next = NEVER
  local function first(set, plus)
    local head = call('ZRANGE', set, 0, 0, 'WITHSCORES')
    if head[2] then due_at(tonumber(head[2]) + plus) end
  end
  for _, set in ipairs({EXPIRIES, DUE, EXPIRING, COMPLETED, CANCELLED, DISCARDED}) do first(set, 0) end
  first(AGES, idempotency_window)
end

-- Does up to `budget` of what is due: rescue, promote, expire, prune; true when more may be.
local function upkeep(budget)
  if meta.next > now then return false end
  budget = rescue_expired(budget)
  if budget > 0 then budget = promote(budget) end
  if budget > 0 then budget = expire_due(budget) end
  -- What just ended counts against the bound before anything is forgotten because of its age.
  prune_excess(1000)
  if budget > 0 then budget = prune_due(budget) end
  if budget > 0 then budget = forget_old_idempotencies(budget) end
  flush()
  rearm()
  return meta.next <= now
end

-- The end of a call -------------------------------------------------------------------------------------------------

-- Tells those who wait: there is something to claim, or something is due earlier than they know. A process whose push this
-- was wakes its own, so its name goes along.
local function wake(who)
  -- Where nothing is known of those who wait, they may be those of a history that was lost.
  if meta.waiting == 0 and loaded[12] then return end
  local ready = meta.paused == 0 and call('EXISTS', LINE) == 1 and call('HLEN', RUNNING) < running_limit
  if ready or meta.next < next_before then
    meta.waiting = 0
    call('PUBLISH', BASE .. 'wake', 'w' .. (who or ''))
  end
end

local function count(slot, n)
  if n == 0 then return end
  local before = floor(meta[slot] / RATE) == second and meta[slot] % RATE or 0
  meta[slot] = second * RATE + math.min(before + n, RATE - 1)
end

-- Writes the log, the queue's numbers and what was gathered. Every script that changes something ends with this. With
-- `wants` somebody waits who got nothing. Answers with what happened, counted: a change and 4 bytes each.
local function save(wants, who)
  prune_excess(1000)
  flush()
  if logged > 0 then
    local parts = {}
    for i = 1, #log do
      parts[i] = log[i].whole or (log[i].change .. pack('>I4', #log[i]) .. concat(log[i]))
    end
    local first = meta.place + 1
    meta.place = meta.place + logged
    local chunk = pack('>I6', now) .. concat(parts)
    if history_max > 0 then
      local oldest, id = string.format('%.0f', math.max(0, meta.place - history_max)), string.format('%.0f-1', first)
      local added = redis.pcall('XADD', LOG, 'MINID', '~', oldest, id, 'c', chunk)
      if type(added) == 'table' then
        -- A log that is ahead of the queue is that of a history that was lost.
        call('UNLINK', LOG)
        call('XADD', LOG, id, 'c', chunk)
      end
    end
    call('PUBLISH', BASE .. 'events', pack('>I6', first) .. chunk)
  end
  wake(who)
  if wants then meta.waiting = 1 end
  count(E_SLOT, enqueued)
  count(F_SLOT, ended)
  local changed = {}
  for i = 1, 16 do
    local field = FIELDS[i]
    if meta[field] ~= tonumber(loaded[i]) then
      changed[#changed + 1] = field
      changed[#changed + 1] = meta[field]
    end
  end
  if #changed > 0 then call('HSET', META, unpack(changed)) end
  local tally = {}
  for i = 1, #log do tally[i] = log[i].change .. pack('>I4', log[i].count or #log[i]) end
  return concat(tally)
end
