-- Lists a prefix no more: no value of it is left, and whoever began before is told not to write one.
-- KEYS: the namespace. ARGV: the prefix, the number it was listed under.
-- Reply: 1 when it was listed so.
if redis.call('HGET', KEYS[1], 'p:' .. ARGV[1]) ~= ARGV[2] then return 0 end
if tonumber(redis.call('HGET', KEYS[1], 'unlisted') or '0') < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'unlisted', ARGV[2])
end
return redis.call('HDEL', KEYS[1], 'p:' .. ARGV[1])
