-- Ends attempts and hands out jobs, the short way: completions and claims of plain jobs when nothing is due and nobody left a
-- note. ARGV: settings, operation, jobs wanted, bytes wanted, '1' when who gets none waits, attempts to end (15 bytes each:
-- verb, id, attempt, grant), then what the verbs C and f come with. Replies: now, next, tally, live, bytes, outcomes (a letter
-- each), 1 when there was more than the bytes wanted, heads of the jobs handed out (id 6, attempt 2, grant 6, available since 6 or 0), their records.
local operation, limit, bytes_left, waits, ends = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1', ARGV[6]
-- What memory is short of must still be able to end: a first write that is always allowed lets the whole call through.
call('HDEL', META, '')

-- Sent once more because the reply was lost: the same outcomes, and the jobs of that grant that are still held.
local function again(before)
  local grant, ids, reply = sub(before, 7, 12), {}, {now, tonumber(loaded[10] or NEVER), '', tonumber(loaded[4] or 0),
    tonumber(loaded[5] or 0), sub(before, 13), 0}
  local all = call('HGET', GRANTED, grant) or ''
  for at = 1, #all, 6 do ids[#ids + 1] = sub(all, at, at + 5) end
  local heads = {}
  reply[8] = ''
  for i = 1, #ids do
    local held = call('HGET', RUNNING, ids[i])
    if held and sub(held, 3, 8) == grant then
      heads[#heads + 1] = ids[i] .. sub(held, 1, 8) .. '\0\0\0\0\0\0'
      reply[#reply + 1] = call('HGET', JOBS, ids[i])
    end
  end
  reply[8] = concat(heads)
  return reply
end

-- Redis searches small hashes of short values from the front, every time; one long value makes it a table.
local PAD = '                                '
-- Answers nil when the long way has to be gone; nothing is written then.
local function short_way()
  local live, bytes, next = tonumber(loaded[4] or 0), tonumber(loaded[5] or 0), tonumber(loaded[10] or NEVER)
  if next <= now or call('EXISTS', NOTES, WAITING) > 0 then return nil end
  local ids, many = {}, #ends / 15
  for i = 1, many do
    local verb = byte(ends, 15 * i - 14)
    if verb ~= 99 and verb ~= 67 then return nil end
    ids[i] = sub(ends, 15 * i - 13, 15 * i - 8)
  end
  -- Only completed jobs are pushed out here, and only by their number.
  if tonumber(loaded[8] or 0) > finished_bytes_max
    or (tonumber(loaded[7] or 0) + many > finished_max and call('EXISTS', CANCELLED) == 1) then
    return nil
  end
  local paused = loaded[11] == '1'
  local wanted = paused and 0 or limit
  local running = running_limit < 4294967295 and call('HLEN', RUNNING)

  -- First everything is read.
  local held = {}
  if many > 0 then
    held = call('HMGET', RUNNING, unpack(ids))
  end
  local over, outcomes, by_grant = 0, {}, {}
  for i = 1, many do
    local h, attempt, grant, expiry = held[i]
    if h then attempt, grant, expiry = parse('>I2I6I6', h) end
    local wanted_attempt, wanted_grant = parse('>I2I6', ends, 15 * i - 7)
    if grant == wanted_grant and attempt == wanted_attempt and expiry > now then
      if byte(h, 20) > 1 then return nil end
      over = over + 1
      outcomes[i] = 'o'
      by_grant[grant] = (by_grant[grant] or 0) + 1
    else
      outcomes[i] = 's'
    end
  end
  if running then wanted = math.max(0, math.min(wanted, running_limit - (running - over))) end
  local line, got, next_ids, next_records = {}, 0, {}, {}
  if wanted > 0 then
    next_ids = call('ZRANGE', LINE, 0, wanted - 1)
    got = #next_ids
    if got > 0 then
      -- Jobs of one push share their score; telling it of each costs more than anything else here.
      line = call('ZSCORE', LINE, next_ids[1])
      if call('ZSCORE', LINE, next_ids[got]) ~= line then line = call('ZRANGE', LINE, 0, wanted - 1, 'WITHSCORES') end
      next_records = call('HMGET', JOBS, unpack(next_ids))
    end
    for i = 1, got do
      local record = next_records[i]
      if not record or (byte(record, 7) or 255) > 1 then return nil end
      bytes_left = bytes_left - #record
      if bytes_left < 0 then return nil end
    end
  end

  -- Then everything is written.
  local log, tally, logged, meta = {}, {}, 0, {}
  if over > 0 then
    local gone, finished, done, kept, weight, at, extra, ended, ends_of, until_ = {}, {}, {}, 0, 0, 0, 6, {}, {}, {}
    for i = 1, many do
      local result, big
      if byte(ends, 15 * i - 14) == 67 then
        extra = extra + 1
        result = ARGV[extra]
        if byte(result) == 2 then
          extra = extra + 1
          big = ARGV[extra]
        end
      end
      if outcomes[i] == 'o' then
        local id, h = ids[i], held[i]
        local size, retention = parse('>I4I5', h, 21)
        ended[#ended + 1] = id
        weight = weight + size
        if retention == 0 then
          gone[#gone + 1] = id
        else
          size = size + 61
          -- Jobs of one claim without results end alike.
          local attempt, grant = parse('>I2I6', h)
          local how = not result and ends_of[size]
          if not how or how.attempt ~= attempt or how.grant ~= grant then
            if result then size = size + #result - 1 end
            if big then
              size = size + #big
              call('HSET', LARGE, 'r' .. id, big)
            end
            how = {attempt = attempt, grant = grant, text = pack('>BI2I6I6I4I4', big and 132 or 4, attempt,
              floor(grant / 256) + BIRTH * 1000, now, size, 0) .. (result or '\0')}
            if not result then ends_of[size] = how end
          end
          local score = until_[retention]
          if not score then
            score = string.format('%.0f', now + retention)
            until_[retention] = score
            if now + retention < next then next = now + retention end
          end
          finished[at + 1], finished[at + 2] = id, how.text
          done[at + 1], done[at + 2] = score, id
          at = at + 2
          kept = kept + size
        end
      end
    end
    call('HDEL', RUNNING, unpack(ended))
    for number, count in pairs(by_grant) do
      local grant = pack('>I6', number)
      if call('HSTRLEN', GRANTED, grant) == 6 * count then
        call('HDEL', GRANTED, grant)
        call('ZREM', EXPIRIES, grant)
      end
    end
    if over == many then
      -- As they came: a verb, what an entry of the log is, a grant.
      log[1] = 'F' .. pack('>I4', over) .. ends
    else
      local items = {}
      for i = 1, many do
        if outcomes[i] == 'o' then items[#items + 1] = sub(ends, 15 * i - 13, 15 * i - 6) end
      end
      log[1] = '\3' .. pack('>I4', over) .. concat(items)
    end
    tally[1], logged = '\3' .. pack('>I4', over), over
    local total, kept_before = tonumber(loaded[7] or 0) + at / 2, tonumber(loaded[8] or 0) + kept
    if at > 0 then
      for from = 1, at, 2000 do
        call('HSET', ENDS, unpack(finished, from, math.min(from + 1999, at)))
        call('ZADD', COMPLETED, unpack(done, from, math.min(from + 1999, at)))
      end
      -- Too many: those whose time would come first go, as long as they are completed ones.
      local excess = total - finished_max
      if excess > 0 then
        local old = call('ZRANGE', COMPLETED, 0, math.min(excess, 1000) - 1)
        if #old > 0 then
          local how, pruned = call('HMGET', ENDS, unpack(old)), {}
          for i = 1, #old do
            kept_before = kept_before - parse('>I4', how[i], 16)
            pruned[i] = old[i] .. sub(how[i], 2, 3)
            gone[#gone + 1] = old[i]
            if byte(how[i]) >= 128 then call('HDEL', LARGE, 'd' .. old[i], 'r' .. old[i]) end
          end
          call('ZREM', COMPLETED, unpack(old))
          call('HDEL', ENDS, unpack(old))
          total = total - #old
          log[2] = '\11' .. pack('>I4', #old) .. concat(pruned)
          tally[2], logged = '\11' .. pack('>I4', #old), logged + #old
        end
      end
    end
    if #gone > 0 then
      for from = 1, #gone, 1000 do call('HDEL', JOBS, unpack(gone, from, math.min(from + 999, #gone))) end
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
    end
    live, bytes = live - over, bytes - weight
    local slot = tonumber(loaded[16] or 0)
    slot = floor(slot / RATE) == second and math.min(slot + over, second * RATE + RATE - 1) or second * RATE + over
    meta = {'live', live, 'bytes', bytes, 'finished', total, 'kept', kept_before, F_SLOT, slot}
  end

  local heads, grant = '', '\0\0\0\0\0\0'
  if got > 0 then
    call('ZREMRANGEBYRANK', LINE, 0, got - 1)
    local number = math.max((loaded[2] or 0) + 1, math.max(0, now - BIRTH * 1000) * 256)
    grant = pack('>I6', number)
    local score, held_args, alike = type(line) == 'string' and line, {}, {}
    local head = '\0\1' .. grant .. pack('>I6', now + lease_ms)
    for i = 1, got do
      local record = next_records[i]
      local value = score and alike[#record]
      if byte(record, 7) == 1 then
        value = head .. sub(record, 9, 13) .. pack('>BI4', 1, #record - 29) .. sub(record, 14, 18) .. (score or line[2 * i]) .. PAD
      elseif not value then
        value = head .. pack('>I5BI4I5', HALF_HOUR, 0, #record - 9, DAY) .. (score or line[2 * i]) .. PAD
        alike[#record] = value
      end
      held_args[2 * i - 1] = next_ids[i]
      held_args[2 * i] = value
    end
    for from = 1, 2 * got, 2000 do call('HSET', RUNNING, unpack(held_args, from, math.min(from + 1999, 2 * got))) end
    call('HSET', GRANTED, grant, concat(next_ids))
    call('ZADD', EXPIRIES, now + lease_ms, grant)
    if now + lease_ms < next then next = now + lease_ms end
    meta[#meta + 1], meta[#meta + 2] = 'grant', number
    log[#log + 1] = '\2' .. pack('>I4', got) .. concat(next_ids, '\0\1') .. '\0\1'
    tally[#tally + 1], logged = '\2' .. pack('>I4', got), logged + got
    local tail = '\0\1' .. grant .. '\0\0\0\0\0\0'
    heads = concat(next_ids, tail) .. tail
  end

  -- The log, and those who wait.
  if logged > 0 then
    local place = tonumber(loaded[9] or 0)
    local chunk = pack('>I6', now) .. concat(log)
    if history_max > 0 then
      local oldest, id = string.format('%.0f', math.max(0, place + logged - history_max)), string.format('%.0f-1', place + 1)
      if type(redis.pcall('XADD', LOG, 'MINID', '~', oldest, id, 'c', chunk)) == 'table' then
        -- A log that is ahead of the queue is that of a history that was lost.
        call('UNLINK', LOG)
        call('XADD', LOG, id, 'c', chunk)
      end
    end
    call('PUBLISH', BASE .. 'events', pack('>I6', place + 1) .. chunk)
    meta[#meta + 1], meta[#meta + 2] = 'place', place + logged
  end
  local waiting = loaded[12] == '1'
  -- Where nothing is known of those who wait, they may be those of a history that was lost.
  if waiting or not loaded[12] then
    local ready = not paused and call('EXISTS', LINE) == 1 and (not running or running - over + got < running_limit)
    if ready or next < tonumber(loaded[10] or NEVER) then
      waiting = false
      call('PUBLISH', BASE .. 'wake', 'w')
    end
  end
  if waits and got < limit then waiting = true end
  if next ~= tonumber(loaded[10] or NEVER) then meta[#meta + 1], meta[#meta + 2] = 'next', next end
  if not loaded[12] or waiting ~= (loaded[12] == '1') then meta[#meta + 1], meta[#meta + 2] = 'waiting', waiting and '1' or '0' end
  if #meta > 0 then call('HSET', META, unpack(meta)) end
  outcomes = concat(outcomes)
  call('SET', OP, operation .. grant .. outcomes, 'EX', 600)
  return {now, next, concat(tally), live, bytes, outcomes, 0, heads, unpack(next_records)}
end

do
  local before = call('GET', OP)
  if before then
    local last, this = parse('>I6', before), parse('>I6', operation)
    if last == this then return again(before) end
    if last > this then return redis.error_reply('SUPERSEDED a newer operation of this process came first') end
  end
  local reply = short_way()
  if reply then return reply end
end
