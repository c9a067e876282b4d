-- A page of jobs in the order of submission. ARGV: settings, first id, state or 255, kind or '', key or '', jobs wanted, jobs
-- to look at. With view.lua.
-- Replies: now, next, the id to go on from or '', then views, each behind its id.
local from, state, kind, key, limit, looks = ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local reply, found = {now, meta.next, ''}, 0

local function matches(v)
  if state ~= 255 and v[1] ~= state then return false end
  if kind == '' and key == '' then return true end
  local record = v[2]
  local o = about(record)
  if o.is_damaged then return false end
  if not o.kind_at then o = options(record) end
  if kind ~= '' and sub(record, o.kind_at + 1, o.kind_at + byte(record, o.kind_at)) ~= kind then return false end
  return key == '' or (o.lane and sub(record, o.key_at + 2, o.key_at + 1 + parse('>I2', record, o.key_at)) == key)
end
local function add(id, record)
  looks = looks - 1
  local v = view(id, record)
  if not v or not matches(v) then return end
  found = found + 1
  reply[#reply + 1] = id
  reply[#reply + 1] = v
end
local function full(next_id)
  if found < limit and looks > 0 then return false end
  reply[3] = next_id
  return true
end

-- The members of a state that has few: looked at one by one.
local function members()
  local ids = {}
  if state == IS_RUNNING then
    ids = call('HLEN', RUNNING) <= 1000 and call('HKEYS', RUNNING) or nil
  elseif SETS[state] then
    ids = call('ZCARD', SETS[state]) <= 1000 and call('ZRANGE', SETS[state], 0, -1) or nil
  elseif state == RETRYABLE or state == SCHEDULED then
    ids = call('ZCARD', DUE) <= 1000 and call('ZRANGE', DUE, 0, -1) or nil
  else
    ids = nil
  end
  if not ids then return nil end
  local first, numbers = number_of(from), {}
  for i = 1, #ids do
    local number = number_of(ids[i])
    if number >= first then numbers[#numbers + 1] = number end
  end
  table.sort(numbers)
  return numbers
end

local few = members()
if few then
  for i = 1, #few do
    if full(id_of(few[i])) then return reply end
    add(id_of(few[i]))
  end
  return reply
end

-- All jobs, block by block; every block that is known has a job in it.
local start = '[' .. sub(from, 1, 5)
while true do
  local block = call('ZRANGEBYLEX', BLOCKS, start, '+', 'LIMIT', 0, 1)[1]
  if not block then return reply end
  local ids, first = {}, block == sub(from, 1, 5) and byte(from, 6) or 0
  if full(block .. string.char(first)) then return reply end
  for i = first, 255 do ids[#ids + 1] = block .. string.char(i) end
  local records = call('HMGET', JOBS, unpack(ids))
  for i = 1, #ids do
    if records[i] then
      if full(ids[i]) then return reply end
      add(ids[i], records[i])
    end
  end
  looks = looks - 16
  start = '(' .. block
end
