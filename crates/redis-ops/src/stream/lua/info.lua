-- KEYS  1 the stream
-- ARGV  -
-- reply {length, first, last, last generated, max deleted, entries added}, what is not there nil; nil: no such stream
if redis.call('TYPE', KEYS[1]).ok ~= 'stream' then
  return false
end
local info = redis.call('XINFO', 'STREAM', KEYS[1])
local fields = {}
for at = 1, #info, 2 do
  fields[info[at]] = info[at + 1]
end
-- false, not nil: a nil would cut the reply off there.
local function id(entry)
  return entry and entry[1] or false
end
return {
  fields['length'],
  id(fields['first-entry']),
  id(fields['last-entry']),
  fields['last-generated-id'],
  fields['max-deleted-entry-id'] or false,
  fields['entries-added'] or false,
}
