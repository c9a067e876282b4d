-- The generation of a tag, made where there is none.
-- KEYS: the tag. ARGV: a fresh generation, for how many milliseconds it is needed.
-- Reply: the generation.
local generation = redis.call('GET', KEYS[1])
if not generation then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return ARGV[1]
end
-- Seldom, as everybody hears of it.
if redis.call('PTTL', KEYS[1]) * 2 < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return generation
