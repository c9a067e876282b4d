-- KEYS  1 the stream
-- ARGV  1 group; 2 the channel; 3 ms of idleness that are enough for any claim; 4 … ids
-- reply for each id how often it was delivered, -1 when it is not pending
local key, group, times, freed = KEYS[1], ARGV[1], {}, false
for i = 4, #ARGV do
  local found = redis.pcall('XPENDING', key, group, ARGV[i], ARGV[i], 1)
  if found.err and not string.find(found.err, 'NOGROUP', 1, true) then return found end
  local item = found[1]
  times[i - 3] = item and item[4] or -1
  if item then
    redis.call('XCLAIM', key, group, item[2], 0, ARGV[i], 'IDLE', ARGV[3], 'JUSTID')
    freed = true
  end
end
if freed then redis.call('PUBLISH', ARGV[2], '?' .. key) end
return times
