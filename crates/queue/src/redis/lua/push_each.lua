-- Accepts jobs, each judged on its own: when one has a key, a dedup key, a delay or an expiry, when something is due, or when
-- not all may fit. Follows push.lua and the rules.
-- ARGV and replies as in push.lua.
upkeep(200)

local large = 6 + n
local function allocate(count)
  local first = math.max(meta.number + 1, math.max(0, second - BIRTH) * 262144 + 1)
  meta.number = first + count - 1
  return first
end
-- Written together at the end, but for what a later job of this call may have to find.
local jobs, blocks = {}, {}
local FAR = 315360000000
-- One job with whatever options; the answer is 8 bytes.
local function push_one(body)
  local flags, record, run_at = byte(body, 7), nil, now
  -- What counts from the submission counts from now.
  if flags >= 32 then
    local at, delay = parse('>I6I6', body, 9)
    run_at = math.max(now, at, now + delay)
    record = created .. sub(body, 7, 8) .. pack('>I6', run_at) .. sub(body, 21)
  else
    record = created .. sub(body, 7)
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
  if overflow > 0 then
    -- A later job of this call may push this one out.
    call('HSET', JOBS, id, record)
  else
    jobs[#jobs + 1], jobs[#jobs + 2] = id, record
  end
  if apart then call('HSET', LARGE, 'd' .. id, ARGV[large]) end
  local block = sub(id, 1, 5)
  blocks[block] = (blocks[block] or 0) + 1
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
local function write_jobs()
  each('HSET', JOBS, jobs)
  for block, many in pairs(blocks) do
    call('HINCRBY', COUNTS, block, many)
    call('ZADD', BLOCKS, 0, block)
  end
end

local answers
local recalled = name ~= '' and call('HGET', IDEMPOTENCY, name)
if recalled and now >= parse('>I6', recalled, 9) + idempotency_window then
  forget_idempotency(name)
  recalled = false
end
if recalled and sub(recalled, 1, 8) ~= fingerprint then
  answers = 'm'
else
  local all = {}
  for i = 1, n do
    local known = recalled and sub(recalled, 7 + 8 * i, 14 + 8 * i)
    if known and (byte(known) == 80 or byte(known) == 68) then
      all[i] = known
      if byte(ARGV[6 + i], 7) % 32 >= 16 then large = large + 1 end
    else
      all[i] = push_one(ARGV[6 + i])
    end
  end
  write_jobs()
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
    if second - floor((slot or 0) / RATE) < 60 then rate = rate + slot % RATE end
  end
end
return {now, meta.next, tally, meta.live, meta.bytes, answers, rate}
