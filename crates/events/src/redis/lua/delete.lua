-- KEYS  1 the stream; 2 ended; 3 … its other companions
-- ARGV  1 the channel; 2 this process
-- reply where the stream ended; nil where there was none
if redis.call('TYPE', KEYS[1]).ok ~= 'stream' then return false end
local info, ended = redis.call('XINFO', 'STREAM', KEYS[1]), '0-0'
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then ended = info[i + 1] end
end
-- For a day, so that who comes back to its successor with a place of this one is told.
redis.call('SET', KEYS[2], ended, 'EX', 86400)
redis.call('UNLINK', KEYS[1], unpack(KEYS, 3))
redis.call('PUBLISH', ARGV[1], '!' .. ARGV[2] .. ' ' .. ended .. ' ' .. KEYS[1])
return ended
