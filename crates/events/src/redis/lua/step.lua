-- KEYS  1 the stream; 2 made
-- ARGV  1 group; 2 consumer; 3 events wanted; 4 ms idle before an event is taken over; 5 deliveries of an event at most; 6 pending at most; 7 where a group that is missing begins; 8 groups at most; 9 bytes after which it stops; 10 this process; 11 who made the group as this process knew it, or ''; 12 where to go back to when somebody else made it anew
-- reply 'absent', 'many', or {who made the group, deliveries: entries and how often each, exhausted: likewise, ms until the next one is idle long enough or -1}
local key, group, consumer = KEYS[1], ARGV[1], ARGV[2]
local limit, idle, deliveries_max = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local room = tonumber(ARGV[9])
local call = redis.call

-- A group that is not there.
local pending = redis.pcall('XPENDING', key, group, 'IDLE', ARGV[4], '-', '+', limit)
if pending.err then
  if not string.find(pending.err, 'NOGROUP', 1, true) then return pending end
  if call('EXISTS', key) == 0 then return 'absent' end
  if #call('XINFO', 'GROUPS', key) >= tonumber(ARGV[8]) then return 'many' end
  call('XGROUP', 'CREATE', key, group, ARGV[7])
  local time = call('TIME')
  call('HSET', KEYS[2], group, ARGV[10] .. '-' .. time[1] .. '-' .. time[2])
  pending = {}
end
local made = call('HGET', KEYS[2], group) or '-'
if ARGV[11] ~= '' and ARGV[11] ~= made and ARGV[12] ~= '' then
  -- It was lost and made again by somebody who did not know what this process's consumers hold: back to the earlier place.
  local function before(a, b)
    local a_ms, a_seq = string.match(a, '^(%d+)%-(%d+)$')
    local b_ms, b_seq = string.match(b, '^(%d+)%-(%d+)$')
    if a_ms ~= b_ms then return tonumber(a_ms) < tonumber(b_ms) end
    return tonumber(a_seq) < tonumber(b_seq)
  end
  for _, info in ipairs(call('XINFO', 'GROUPS', key)) do
    local fields = {}
    for i = 1, #info, 2 do fields[info[i]] = info[i + 1] end
    if fields['name'] == group and before(ARGV[12], fields['last-delivered-id']) then
      call('XGROUP', 'SETID', key, group, ARGV[12])
    end
  end
end

local function size(entry)
  local bytes = 0
  for i = 1, #entry[2] do bytes = bytes + #entry[2][i] end
  return bytes
end

-- What others left, oldest first.
local taken, counts, exhausted, exhausted_counts = {}, {}, {}, {}
for _, item in ipairs(pending) do
  if room <= 0 then break end
  local id, times = item[1], item[4]
  local entry
  if times < deliveries_max then
    entry = call('XCLAIM', key, group, consumer, ARGV[4], id)[1]
  else
    entry = call('XRANGE', key, id, id)[1]
    if entry then call('XCLAIM', key, group, consumer, ARGV[4], id, 'JUSTID') end
  end
  if not entry then
    -- Trimmed meanwhile; Redis 6.2 keeps it pending.
    call('XACK', key, group, id)
  elseif times < deliveries_max then
    taken[#taken + 1], counts[#counts + 1] = entry, times + 1
  else
    exhausted[#exhausted + 1], exhausted_counts[#exhausted_counts + 1] = entry, times
  end
  if entry then room = room - size(entry) end
end

-- What is new.
local held = call('XPENDING', key, group)[1]
local wanted = math.min(limit - #taken, tonumber(ARGV[6]) - held)
while wanted > 0 and room > 0 do
  local count = math.min(wanted, 100)
  local reply = call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', count, 'STREAMS', key, '>')
  local entries = reply and reply[1] and reply[1][2] or {}
  for _, entry in ipairs(entries) do
    taken[#taken + 1], counts[#counts + 1] = entry, 1
    room = room - size(entry)
  end
  if #entries < count then break end
  wanted = wanted - count
end

-- When to look again, for who got nothing.
local next_idle = -1
if #taken == 0 and held > 0 then
  local looked = call('XPENDING', key, group, '-', '+', 100)
  for _, item in ipairs(looked) do
    local left = math.max(0, idle - item[3])
    if next_idle < 0 or left < next_idle then next_idle = left end
  end
  if #looked == 100 and next_idle > 5000 then next_idle = 5000 end
end
return { made, taken, counts, exhausted, exhausted_counts, next_idle }
