-- Puts a discarded or cancelled job back to the end of the line with all its attempts. ARGV: settings, id.
-- With view.lua.
-- Replies: now, next, tally, what came of it (n unknown, x does not apply, d its dedup key is taken, F or B full, o done), the job
-- before or nil, live, bytes.
local id = ARGV[2]
local before = view(id)
if not before then return {now, meta.next, '', 'n'} end
local state, record, over = before[1], before[2], before[8]
if state ~= DISCARD and state ~= CANCEL then return {now, meta.next, '', 'x', before} end
local o = about(record)
if o.is_damaged then return {now, meta.next, '', 'x', before} end
if o.dedup then
  local held = call('HGET', DEDUP, o.dedup)
  if held and now < parse('>I6', held, 7) then return {now, meta.next, '', 'd', before} end
end
local full = make_room(o.weight, o.priority)
if full then
  -- To make room others may have gone already.
  local tally = save()
  return {now, meta.next, tally, full, before, meta.live, meta.bytes}
end
if o.expires_at then
  -- Somebody wants it to run: it no longer expires.
  record = sub(record, 1, o.expires_at - 1) .. '\0\0\0\0\0\0' .. sub(record, o.expires_at + 6)
  call('HSET', JOBS, id, record)
end
local report, failure = parse('>I2I2', over, 20)
call('ZREM', SETS[state], id)
call('HDEL', ENDS, id)
call('HDEL', LARGE, 'r' .. id)
meta.finished, meta.kept = meta.finished - 1, meta.kept - parse('>I4', over, 16)
meta.live, meta.bytes = meta.live + 1, meta.bytes + o.weight
if o.dedup then call('HSET', DEDUP, o.dedup, id .. pack('>I6', o.until_)) end
set_tried(id, 0, 0, now, sub(over, 24 + report, 23 + report + failure))
enter(id, o)
note(RETRIED, id, '\0\0')
local tally = save()
return {now, meta.next, tally, 'o', before, meta.live, meta.bytes}
