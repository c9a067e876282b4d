-- Accepts jobs. ARGV: settings, operation, idempotency name or '', its fingerprint, weight of all when every job is plain or
-- '', how many, their records without the time of submission, then the payloads kept apart in the same order.
-- Replies: now, next, tally, live, bytes, answers, jobs finished in the last minute (when one was refused, else 0).
local operation, name, fingerprint, weight, n = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local before = call('GET', OP)
if before and number_of(before) >= number_of(operation) then
  if sub(before, 1, 6) ~= operation then return redis.error_reply('SUPERSEDED a newer operation of this process came first') end
  return {now, meta.next, '', meta.live, meta.bytes, sub(before, 7), 0}
end
upkeep(500)

local created, large = pack('>I6', now), 6 + n
local function keep_apart(id)
  large = large + 1
  call('HSET', LARGE, 'd' .. id, ARGV[large])
end
local function allocate(count)
  local first = math.max(meta.number + 1, math.max(0, second - BIRTH) * 262144 + 1)
  meta.number = first + count - 1
  return first
end
local function count_blocks(first, count)
  local last = first + count - 1
  while first <= last do
    local block, until_ = sub(id_of(first), 1, 5), math.min(last, first - first % 256 + 255)
    local many = until_ - first + 1
    if call('HINCRBY', COUNTS, block, string.format('%.0f', many)) == many then call('ZADD', BLOCKS, 0, block) end
    first = until_ + 1
  end
end

-- Jobs without options, and room for all of them: one turn for the whole call, equals stand in order of their ids.
local function push_plain()
  local first, turn, jobs, line, scores = allocate(n), next_turn(), {}, {}, {}
  for i = 1, n do
    local id, body = id_of(first + i - 1), ARGV[6 + i]
    local flags, priority = byte(body, 1, 2)
    local score = scores[priority]
    if not score then
      score = string.format('%.0f', priority * TURNS + turn)
      scores[priority] = score
    end
    jobs[2 * i - 1], jobs[2 * i] = id, created .. body
    line[2 * i - 1], line[2 * i] = score, id
    if flags == 16 then keep_apart(id) end
  end
  each('HSET', JOBS, jobs)
  each('ZADD', LINE, line)
  count_blocks(first, n)
  meta.live, meta.bytes, enqueued, logged = meta.live + n, meta.bytes + weight, n, logged + n
  log[#log + 1], segment = {change = ENQUEUED, count = n, whole = '@' .. pack('>I6I4', first, n)}, nil
  return 'a' .. id_of(first)
end

local FAR = 315360000000
-- One job with whatever options; the answer is 8 bytes.
local function push_one(body)
  local flags, record, run_at = byte(body, 1), nil, now
  if flags >= 32 then
    local at, delay = parse('>I6I6', body, 3)
    run_at = math.max(now, at, now + delay)
    record = created .. sub(body, 1, 2) .. pack('>I6', run_at) .. sub(body, 15)
  else
    record = created .. body
  end
  local o = options(record)
  local apart = o.apart
  if apart then large = large + 1 end
  if o.dedup then
    local held = call('HGET', DEDUP, o.dedup)
    if held and now < parse('>I6', held, 7) then
      local id = sub(held, 1, 6)
      return 'D' .. id .. string.char(state_of(id))
    end
  end
  if run_at > now + FAR then return 'R\0\0\0\0\0\0\0' end
  if o.expires and o.expires <= run_at then return 'X\0\0\0\0\0\0\0' end
  local full = make_room(o.weight, o.priority)
  if full then return full .. pack('>I6', full == 'F' and meta.live or meta.bytes) .. '\0' end
  local number = allocate(1)
  local id = id_of(number)
  call('HSET', JOBS, id, record)
  if apart then call('HSET', LARGE, 'd' .. id, ARGV[large]) end
  count_blocks(number, 1)
  meta.live, meta.bytes, enqueued = meta.live + 1, meta.bytes + o.weight, enqueued + 1
  if o.dedup then call('HSET', DEDUP, o.dedup, id .. pack('>I6', o.until_)) end
  if o.expires then
    call('ZADD', EXPIRING, o.expires, id)
    due_at(o.expires)
  end
  local state = AVAILABLE
  if run_at > now then
    state = SCHEDULED
    call('ZADD', DUE, run_at, id)
    due_at(run_at)
  else
    enter(id, o)
  end
  note(ENQUEUED, id, '\0\0')
  return 'P' .. id .. string.char(state)
end

local answers
local recalled = name ~= '' and call('HGET', IDEMPOTENCY, name)
if recalled and now >= parse('>I6', recalled, 9) + idempotency_window then
  forget_idempotency(name)
  recalled = false
end
if recalled and sub(recalled, 1, 8) ~= fingerprint then
  answers = 'm'
elseif weight and name == '' and meta.live + n <= jobs_max and meta.bytes + weight <= bytes_max then
  answers = push_plain()
else
  local all = {}
  for i = 1, n do
    local known = recalled and sub(recalled, 7 + 8 * i, 14 + 8 * i)
    if known and (byte(known) == 80 or byte(known) == 68) then
      all[i] = known
      if byte(ARGV[6 + i]) % 32 >= 16 then large = large + 1 end
    else
      all[i] = push_one(ARGV[6 + i])
    end
  end
  answers = concat(all)
  if name ~= '' and answers ~= (recalled and sub(recalled, 15)) and string.find(answers, '[PD]') then
    if recalled then
      meta.answers = meta.answers - (#recalled - 14) / 8
    else
      call('ZADD', AGES, now, name)
      due_at(now + idempotency_window)
    end
    call('HSET', IDEMPOTENCY, name, fingerprint .. (recalled and sub(recalled, 9, 14) or created) .. answers)
    meta.answers = meta.answers + n
    while call('HLEN', IDEMPOTENCY) > idempotency_max or meta.answers > idempotency_max * 10 do
      meta.forgotten = meta.forgotten + 1
      forget_idempotency(call('ZRANGE', AGES, 0, 0)[1])
    end
  end
  answers = 's' .. answers
end
local tally = save(false, sub(OP, -18, -3))
call('SET', OP, operation .. answers, 'EX', 600)

local rate = 0
if sub(answers, 1, 1) == 's' and string.find(answers, '[FB]') then
  local slots = {}
  for i = 0, 59 do slots[i + 1] = 'f' .. i end
  for _, slot in ipairs(call('HMGET', META, unpack(slots))) do
    local at, many = string.match(slot or '', '^(%d+):(%d+)$')
    if at and second - at < 60 then rate = rate + many end
  end
end
return {now, meta.next, tally, meta.live, meta.bytes, answers, rate}
