-- KEYS  1 the stream; 2 op; 3 seen; 4 ages; 5 made; 6 ended
-- ARGV  1 number of the operation (6 bytes); 2 length kept at least, or ''; 3 age in ms, or ''; 4 idempotence window in ms, or '' when no event has an id; 5 ids remembered at most; 6 the channel; 7 a byte per event: which values it has (1 type, 2 data, 4 key, 8 source, 16 subject, 32 id); 8 … the values, event by event, in that order
-- reply 'n' where the stream is new, else '-'; then 'r' and the first id of ids that follow each other, or 'l' and all ids between spaces, '=' before one that was there already
local call, key, operation = redis.call, KEYS[1], ARGV[1]
local before = call('GET', KEYS[2])
if before then
  local last, this = struct.unpack('>I6', before), struct.unpack('>I6', operation)
  if last == this then return string.sub(before, 7) end
  if last > this then return redis.error_reply('SUPERSEDED a newer publish of this process came first') end
end
local layout, window, byte = ARGV[7], tonumber(ARGV[4]), string.byte
local n, at, ids, last, again = #layout, 8, {}, nil, false
local answer, place = '-', '*'
if call('EXISTS', key) == 0 then
  answer = 'n'
  -- What belonged to a former stream of this name that somebody else deleted.
  call('UNLINK', KEYS[3], KEYS[4], KEYS[5])
  -- Of a stream that was just deleted no place is given out again, also within the same millisecond.
  local ended = call('GET', KEYS[6])
  if ended then
    local time, ms, seq = call('TIME'), string.match(ended, '^(%d+)%-(%d+)$')
    if tonumber(ms) >= time[1] * 1000 + math.floor(time[2] / 1000) then
      place = ms .. '-' .. string.format('%.0f', seq + 1)
    end
  end
end
if window then
  -- What is too old is forgotten before it is looked for, what is too much afterwards.
  local time = call('TIME')
  local oldest = time[1] * 1000 + math.floor(time[2] / 1000) - window
  for _ = 1, 2 * n + 100 do
    local ms, id = string.match(call('LINDEX', KEYS[4], 0) or '', '^(%d+)%-%d+ (.*)$')
    if not id or tonumber(ms) > oldest then break end
    call('LPOP', KEYS[4])
    call('HDEL', KEYS[3], id)
  end
end
for i = 1, n do
  local has = byte(layout, i)
  if has == 3 then
    last = call('XADD', key, place, 'tg', '1', 'type', ARGV[at], 'data', ARGV[at + 1])
    ids[i], at, place = last, at + 2, '*'
  elseif has == 2 then
    last = call('XADD', key, place, 'tg', '1', 'data', ARGV[at])
    ids[i], at, place = last, at + 1, '*'
  else
    local fields, m, bit = {}, 0, 1
    for _, name in ipairs({ 'type', 'data', 'key', 'source', 'subject', 'id' }) do
      if has % (bit * 2) >= bit then
        fields[m + 1], fields[m + 2] = name, ARGV[at]
        m, at = m + 2, at + 1
      end
      bit = bit * 2
    end
    local known = has >= 32 and call('HGET', KEYS[3], fields[m])
    if known then
      ids[i], again = '=' .. known, true
    else
      last = call('XADD', key, place, 'tg', '1', unpack(fields))
      ids[i], place = last, '*'
      if has >= 32 then
        call('HSET', KEYS[3], fields[m], last)
        call('RPUSH', KEYS[4], last .. ' ' .. fields[m])
      end
    end
  end
end
if last then
  local ms = string.match(last, '^%d+')
  if ARGV[2] ~= '' then call('XTRIM', key, 'MAXLEN', '~', ARGV[2]) end
  if ARGV[3] ~= '' then call('XTRIM', key, 'MINID', '~', string.format('%.0f', math.max(0, ms - ARGV[3]))) end
  if window then
    for _ = 1, math.min(call('HLEN', KEYS[3]) - ARGV[5], 2 * n + 100) do
      local id = string.match(call('LPOP', KEYS[4]) or '', '^%d+%-%d+ (.*)$')
      if not id then break end
      call('HDEL', KEYS[3], id)
    end
    call('PEXPIRE', KEYS[3], ARGV[4])
    call('PEXPIRE', KEYS[4], ARGV[4])
  end
  -- One after the other within a millisecond: the first says them all.
  if not again and string.match(ids[1], '^%d+') == ms then
    answer = answer .. 'r' .. ids[1]
  end
  call('PUBLISH', ARGV[6], last .. ' ' .. key)
end
if #answer == 1 then answer = answer .. 'l' .. table.concat(ids, ' ') end
call('SET', KEYS[2], operation .. answer, 'EX', 600)
return answer
