-- Keeps or gives back a lease that is still ours, over what was there when it was granted.
-- KEYS: the lease, its value. ARGV: its token, its life in ms (0: give it back), the id of what lay there.
-- Reply: 1 when all is as it was.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local same = redis.call('GETRANGE', KEYS[2], 1, 8) == ARGV[3]
if ARGV[2] == '0' or not same then
  redis.call('DEL', KEYS[1])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return same and 1 or 0
