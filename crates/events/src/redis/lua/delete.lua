-- KEYS  1 the stream; 2 ended; 3 … its other companions
-- ARGV  1 the channel; 2 what is said there
-- reply 1 where there was such a stream, else 0
if redis.call('TYPE', KEYS[1]).ok ~= 'stream' then return 0 end
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then redis.call('SET', KEYS[2], info[i + 1], 'EX', 60) end
end
redis.call('UNLINK', KEYS[1], unpack(KEYS, 3))
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1
