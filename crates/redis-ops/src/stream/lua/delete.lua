-- KEYS  streams, all of one slot in a cluster
-- ARGV  -
-- reply for each key 1 where it was a stream and is deleted, else 0
local deleted = {}
for at, key in ipairs(KEYS) do
  local is_stream = redis.call('TYPE', key).ok == 'stream'
  deleted[at] = is_stream and redis.call('UNLINK', key) or 0
end
return deleted
