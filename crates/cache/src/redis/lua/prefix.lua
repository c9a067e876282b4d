-- Invalidates what begins with a prefix; with an empty one, or with too many listed, everything.
-- KEYS: the namespace. ARGV: the prefix, prefixes that may be listed, a fresh generation.
-- Reply: the number of the invalidation; 0 when everything was invalidated.
local g = KEYS[1]
local kind = redis.call('TYPE', g).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('UNLINK', g) end
-- A write that a full Redis allows: then it allows the others.
redis.call('HDEL', g, '')
local fields = redis.call('HKEYS', g)
local listed = 0
for _, field in ipairs(fields) do
  if field:sub(1, 2) == 'p:' then listed = listed + 1 end
end
local has = redis.call('HEXISTS', g, 'p:' .. ARGV[1]) == 1
local gone = redis.call('HEXISTS', g, 'generation') == 0
local broken = not tonumber(redis.call('HGET', g, 'sequence') or '0')
if ARGV[1] == '' or gone or broken or (listed >= tonumber(ARGV[2]) and not has) then
  for _, field in ipairs(fields) do
    if field:sub(1, 2) == 'p:' then redis.call('HDEL', g, field) end
  end
  redis.call('HSET', g, 'generation', ARGV[3], 'sequence', '0', 'unlisted', '0')
  return 0
end
local sequence = redis.call('HINCRBY', g, 'sequence', 1)
redis.call('HSET', g, 'p:' .. ARGV[1], sequence)
return sequence
