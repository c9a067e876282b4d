-- A process learns what the cache's state is, and whether any Redis of it is one nobody knows: then all values are dead.
-- KEYS: the namespace. ARGV: a fresh generation, the run ids of all primaries.
-- Reply: {generation, sequence, highest number no longer listed, time in ms, {prefix, number, …}}.
local g = KEYS[1]
-- What somebody else put there is none of ours.
local kind = redis.call('TYPE', g).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('UNLINK', g) end
local generation = redis.call('HGET', g, 'generation')
local known = generation and true or false
for _, field in ipairs({'sequence', 'unlisted'}) do
  if known and not tonumber(redis.call('HGET', g, field) or '0') then known = false end
end
for i = 2, #ARGV do
  if known and redis.call('HEXISTS', g, 'r:' .. ARGV[i]) == 0 then known = false end
end
if not known then
  generation = ARGV[1]
  redis.call('DEL', g)
  redis.call('HSET', g, 'generation', generation, 'sequence', '0')
  for i = 2, #ARGV do redis.call('HSET', g, 'r:' .. ARGV[i], '1') end
end
local prefixes = {}
local all = redis.call('HGETALL', g)
for i = 1, #all, 2 do
  if all[i]:sub(1, 2) == 'p:' then
    prefixes[#prefixes + 1] = all[i]:sub(3)
    prefixes[#prefixes + 1] = all[i + 1]
  end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return {generation, redis.call('HGET', g, 'sequence') or '0', redis.call('HGET', g, 'unlisted') or '0', now, prefixes}
