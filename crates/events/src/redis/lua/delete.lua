-- KEYS  1 the stream; 2 … its companions
-- ARGV  1 the channel; 2 what is said there
-- reply 1 where there was such a stream, else 0
if redis.call('TYPE', KEYS[1]).ok ~= 'stream' then return 0 end
redis.call('UNLINK', unpack(KEYS))
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1
