-- Ends attempts and hands out jobs, whatever they are. Follows step.lua and the rules.
-- ARGV as in step.lua. A job of a key goes to the line when the one before it leaves, so keys are taken one by one.
-- Replies as in step.lua.
local more = upkeep(200)

local outcomes = {}
local function end_attempts()
  local ids, n = {}, #ends / 15
  for i = 1, n do ids[i] = sub(ends, 15 * i - 13, 15 * i - 8) end
  local held, mine = fetch('HMGET', RUNNING, ids), {}
  local ended_ids, by_grant, ending, extra = {}, {}, {}, 6
  for i = 1, n do
    local h = held[i]
    if h and sub(h, 1, 8) == sub(ends, 15 * i - 7, 15 * i) and parse('>I6', h, 9) > now and not ending[ids[i]] then
      ending[ids[i]] = true
      ended_ids[#ended_ids + 1] = ids[i]
      mine[i] = #ended_ids
      local grant = sub(h, 3, 8)
      by_grant[grant] = (by_grant[grant] or 0) + 1
    end
  end
  if #ended_ids > 0 then each('HDEL', RUNNING, ended_ids) end
  local records = fetch('HMGET', JOBS, ended_ids)
  for i = 1, n do
    local verb, id = byte(ends, 15 * i - 14), ids[i]
    local argument, big
    if verb ~= 99 and verb ~= 114 then
      extra = extra + 1
      argument = ARGV[extra]
      if verb == 67 and byte(argument) == 2 then
        extra = extra + 1
        big = ARGV[extra]
      end
    end
    if not mine[i] then
      outcomes[i] = 's'
    else
      outcomes[i] = 'o'
      local h, record = held[i], records[mine[i]]
      local o, attempt, started = about(record), parse('>I2', h), started_at(sub(h, 3, 8))
      if verb == 99 or verb == 67 then
        local failure = ''
        if notes() then
          local _, _, _, last = tried(id)
          failure = last
        end
        if o.lane then stop(o) end
        finish(id, o, COMPLETE, attempt, started, failure, argument)
        if big and o.retention > 0 then call('HSET', LARGE, 'r' .. id, big) end
      elseif verb == 102 then
        local mode, delay = parse('>BI5', argument)
        if mode == 0 then
          delay = nil
        elseif mode == 1 then
          delay = backoff(o, attempt, next_chance())
        end
        fail(id, o, attempt, started, sub(argument, 7), delay)
      elseif notes() and call('HEXISTS', NOTES, 'c' .. id) == 1 then
        local _, _, _, failure = tried(id)
        stop(o)
        finish(id, o, CANCEL, attempt, started, failure)
      else
        local _, _, _, failure = tried(id)
        stop(o)
        if notes() then call('HDEL', NOTES, 'r' .. id) end
        attempt = attempt - 1
        set_tried(id, attempt, attempt > 0 and started or 0, now, failure)
        if attempt == 0 and o.expires then
          call('ZADD', EXPIRING, o.expires, id)
          due_at(o.expires)
        end
        enter(id, o, tonumber(sub(h, 30)) % TURNS)
        note(RELEASED, id, pack('>I2', attempt))
      end
    end
  end
  for grant, count in pairs(by_grant) do
    if call('HSTRLEN', GRANTED, grant) == 6 * count then
      call('HDEL', GRANTED, grant)
      call('ZREM', EXPIRIES, grant)
    end
  end
end
if #ends > 0 then end_attempts() end

local wanted, grant = limit, '\0\0\0\0\0\0'
local heads, jobs, is_cut = {}, {}, 0
local function claim()
  meta.grant = math.max(meta.grant + 1, math.max(0, now - BIRTH * 1000) * 256)
  grant = id_of(meta.grant)
  local held, ids, got, terms = {}, {}, 0, grant .. pack('>I6', now + lease_ms)
  local half_hour, usual = pack('>I5', HALF_HOUR), pack('>I5', DAY)
  while got < limit do
    local popped = call('ZPOPMIN', LINE, call('EXISTS', WAITING) == 1 and 1 or limit - got)
    if #popped == 0 then break end
    local some, fields = {}, notes() and {}
    for i = 1, #popped, 2 do
      some[#some + 1] = popped[i]
      if fields then fields[#fields + 1] = 't' .. popped[i] end
    end
    local records = call('HMGET', JOBS, unpack(some))
    local past = fields and call('HMGET', NOTES, unpack(fields))
    for i = 1, #some do
      local id, record = some[i], records[i]
      local t, o = past and past[i], nil
      if not record or #record < 9 or byte(record, 7) > 0 then o = about(record) end
      local attempts = t and parse('>I2', t) or 0
      if o and o.is_damaged then
        finish(id, o, DISCARD, attempts, 0, 'damaged: its record cannot be read')
      elseif o and attempts == 0 and o.expires and o.expires <= now then
        leave_line(id, o)
        finish(id, o, DISCARD, 0, 0, EXPIRED)
      else
        bytes_left = bytes_left - (o and o.apart or #record)
        if bytes_left < 0 and got > 0 then
          local back = {}
          for j = i, #some do
            back[#back + 1] = popped[2 * j]
            back[#back + 1] = some[j]
          end
          each('ZADD', LINE, back)
          limit, is_cut = got, 1
          break
        end
        if o and o.lane then
          call('ZREM', WAITING, o.lane .. string.char(o.priority) .. id)
          local l = lane_of(o.lane)
          l.running, l.head, l.turn = l.running + 1, nil, 0
          settle(o.lane, l)
        end
        if o and o.expires and attempts == 0 then call('ZREM', EXPIRING, id) end
        local attempt = attempts == 0 and '\0\1' or pack('>I2', attempts + 1)
        got = got + 1
        ids[got] = id
        held[2 * got - 1] = id
        held[2 * got] = attempt .. terms .. (o and terms_of(o) or half_hour .. pack('>BI4', 0, #record - 9) .. usual) .. popped[2 * i] .. PAD
        heads[got] = id .. attempt .. grant .. (t and sub(t, 9, 14) or '\0\0\0\0\0\0')
        jobs[got] = record
        note(CLAIMED, id, attempt)
      end
    end
  end
  if got > 0 then
    each('HSET', RUNNING, held)
    call('HSET', GRANTED, grant, concat(ids))
    call('ZADD', EXPIRIES, now + lease_ms, grant)
    due_at(now + lease_ms)
  end
  return got
end
if limit > 0 and meta.paused == 0 then
  if running_limit < 4294967295 then limit = math.min(limit, math.max(0, running_limit - call('HLEN', RUNNING))) end
  if limit > 0 then wanted = wanted - claim() end
end
local tally = save(waits and wanted > 0 and is_cut == 0)
call('SET', OP, operation .. grant .. concat(outcomes), 'EX', 600)
local reply = {now, more and now or meta.next, tally, meta.live, meta.bytes, concat(outcomes), is_cut, concat(heads)}
for i = 1, #jobs do reply[8 + i] = jobs[i] end
return reply
