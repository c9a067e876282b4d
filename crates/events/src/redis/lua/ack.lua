-- KEYS  1 the stream
-- ARGV  1 group; 2 … ids
-- reply a digit per id: 1 where it was pending, else 0
local digits = {}
for i = 2, #ARGV do
  digits[i - 1] = redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
end
return table.concat(digits)
