-- Deletes those values that are dead: begun under another generation, or before a number.
-- KEYS: values. ARGV: for each, generation and number as 16 bytes.
-- Reply: how many were deleted.
local deleted = 0
for i, key in ipairs(KEYS) do
  local begun = redis.call('GETRANGE', key, 9, 24)
  if #begun == 16 and (begun:sub(1, 8) ~= ARGV[i]:sub(1, 8) or begun:sub(9) < ARGV[i]:sub(9)) then
    deleted = deleted + redis.call('UNLINK', key)
  end
end
return deleted
