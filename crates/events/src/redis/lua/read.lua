-- KEYS  1 the stream
-- ARGV  1 XRANGE or XREVRANGE; 2, 3 the ends in its order; 4 how many at most; 5 bytes after which it stops
-- reply {entries, 1 where it stopped because of the bytes}; nil: no such stream
if redis.call('TYPE', KEYS[1]).ok ~= 'stream' then return false end
local verb, from, to, left, room = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local entries, n = {}, 0
while left > 0 do
  local page = redis.call(verb, KEYS[1], from, to, 'COUNT', math.min(left, 100))
  for _, entry in ipairs(page) do
    local fields = entry[2]
    n = n + 1
    entries[n] = entry
    for i = 1, #fields do room = room - #fields[i] end
    if room <= 0 then return { entries, 1 } end
  end
  if #page < math.min(left, 100) then break end
  left = left - #page
  from = '(' .. page[#page][1]
end
return { entries, 0 }
