-- Deletes values. Who loads one of them now will not keep what it loads.
-- KEYS: values, then as many leases. ARGV: none.
-- Reply: how many values there were.
local half = #KEYS / 2
local deleted = 0
for i = 1, half do
  redis.call('DEL', KEYS[half + i])
  deleted = deleted + redis.call('UNLINK', KEYS[i])
end
return deleted
