-- KEYS  1 the stream
-- ARGV  1 XRANGE or XREVRANGE; 2, 3 the ends in its order; 4 how many at most
-- reply {entries}; nil: no such stream
if redis.call('TYPE', KEYS[1]).ok ~= 'stream' then
  return false
end
return { redis.call(ARGV[1], KEYS[1], ARGV[2], ARGV[3], 'COUNT', ARGV[4]) or {} }
