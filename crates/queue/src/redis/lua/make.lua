-- Makes a queue known. KEYS: the hash of all queues. ARGV: its name, how many there may be.
-- Bounded: at the bound no further queue is made.
-- Replies: how many there are, or 0 when there is no room.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
  redis.call('HSET', KEYS[1], ARGV[1], 1)
end
return redis.call('HLEN', KEYS[1])
