-- Keeps or gives back a lease that is still ours.
-- KEYS: the lease. ARGV: its token, its life in ms (0: give it back).
-- Reply: 1 when it was ours.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
