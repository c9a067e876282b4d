-- Accepts jobs, the short way: jobs without key, dedup key, delay and expiry, when nothing is due and all fit. ARGV: settings, operation, idempotency name or '', its fingerprint, weight of all when every job is plain or
-- '', how many, their records, then the payloads kept apart in the same order.
-- Replies: now, next, tally, live, bytes, answers, jobs finished in the last minute (when one was refused, else 0).
local operation, name, fingerprint, weight, n = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local created = pack('>I6', now)
do
  local next, live, bytes = tonumber(loaded[10] or NEVER), tonumber(loaded[4] or 0), tonumber(loaded[5] or 0)
  local before = call('GET', OP)
  if before then
    local last = parse('>I6', before)
    if last == parse('>I6', operation) then return {now, next, '', live, bytes, sub(before, 7), 0} end
    if last > parse('>I6', operation) then return redis.error_reply('SUPERSEDED a newer operation of this process came first') end
  end
  if weight and next > now and live + n <= jobs_max and bytes + weight <= bytes_max then
    local first = math.max((loaded[1] or 0) + 1, math.max(0, second - BIRTH) * 262144 + 1)
    local turn, last, large = (loaded[3] or 0) + 1, first + n - 1, 6 + n
    -- One turn for the whole call: equals stand in the order of their ids.
    local jobs, line, scores, at = {}, {}, {}, 0
    for i = 1, n do
      local body = ARGV[6 + i]
      local id, flags, priority = pack('>I6', first + i - 1), byte(body, 7, 8)
      local score = scores[priority]
      if not score then
        score = string.format('%.0f', priority * TURNS + turn)
        scores[priority] = score
      end
      jobs[at + 1], jobs[at + 2] = id, body
      line[at + 1], line[at + 2] = score, id
      at = at + 2
      if flags >= 16 then
        large = large + 1
        call('HSET', LARGE, 'd' .. id, ARGV[large])
      end
    end
    for from = 1, at, 2000 do
      local to = math.min(from + 1999, at)
      call('HSET', JOBS, unpack(jobs, from, to))
      call('ZADD', LINE, unpack(line, from, to))
    end
    local number = first
    while number <= last do
      local block, until_ = sub(pack('>I6', number), 1, 5), math.min(last, number - number % 256 + 255)
      local many = until_ - number + 1
      if call('HINCRBY', COUNTS, block, many) == many then call('ZADD', BLOCKS, 0, block) end
      number = until_ + 1
    end
    local place, waiting = tonumber(loaded[9] or 0), loaded[12] or '1'
    local chunk, from = created .. '@' .. pack('>I6I4', first, n), string.format('%.0f-1', place + 1)
    if history_max > 0 then
      local oldest = string.format('%.0f', math.max(0, place + n - history_max))
      if type(redis.pcall('XADD', LOG, 'MINID', '~', oldest, from, 'c', chunk)) == 'table' then
        -- A log that is ahead of the queue is that of a history that was lost.
        call('UNLINK', LOG)
        call('XADD', LOG, from, 'c', chunk)
      end
    end
    call('PUBLISH', BASE .. 'events', pack('>I6', place + 1) .. chunk)
    if waiting == '1' and loaded[11] ~= '1' and (running_limit == 4294967295 or call('HLEN', RUNNING) < running_limit) then
      waiting = 0
      call('PUBLISH', BASE .. 'wake', 'w' .. sub(OP, -18, -3))
    end
    local slot = tonumber(loaded[15] or 0)
    slot = floor(slot / RATE) == second and math.min(slot + n, second * RATE + RATE - 1) or second * RATE + n
    call('HSET', META, 'number', last, 'turn', turn, 'live', live + n, 'bytes', bytes + weight, 'place', place + n, 'waiting', waiting,
      E_SLOT, slot)
    local answer = 'a' .. pack('>I6', first)
    call('SET', OP, operation .. answer, 'EX', 600)
    return {now, next, '\0' .. pack('>I4', n), live + n, bytes + weight, answer, 0}
  end
end
