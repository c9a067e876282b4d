-- Takes the right to load a value, if nobody has it and the value is the one that was seen.
-- KEYS: the value, its lease. ARGV: a token, the life of the lease in ms, the id of the record seen (empty: there was none), the token of a holder whose load is in vain (or nothing).
-- Reply: {1}; {2} when there is another value; {0, ms, token} when somebody else has it for so long.
if redis.call('GETRANGE', KEYS[1], 1, 8) ~= ARGV[3] then return {2} end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return {1} end
local holder = redis.call('GET', KEYS[2])
local left = redis.call('PTTL', KEYS[2])
-- One that never ends is none of ours.
if holder == ARGV[4] or left < 0 then
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
  return {1}
end
return {0, left, holder}
