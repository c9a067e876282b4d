-- Keeps a value, unless the time for it is over. Who loads it now will not keep what it loads.
-- KEYS: the value, its lease. ARGV: the record, its life in ms, the latest time in ms, a lease's token or nothing, the id of what lay there when it was granted.
-- Reply: 1; 0 when it is too late; -1 when the lease is somebody else's.
local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) > tonumber(ARGV[3]) then return 0 end
if ARGV[4] ~= '' then
  if redis.call('GET', KEYS[2]) ~= ARGV[4] or redis.call('GETRANGE', KEYS[1], 1, 8) ~= ARGV[5] then return -1 end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[2])
return 1
