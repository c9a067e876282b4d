-- Renews leases. ARGV: settings, leases (14 bytes each: id, attempt, grant).
-- Each is extended to a full length from now, but not beyond one length after its attempt's deadline.
-- Replies: now, next, tally, paused, answers (a letter each: o renewed, c stop, s stale).
call('HDEL', META, '')
upkeep(200)
local leases, ids, answers, renewed = ARGV[2], {}, {}, {}
for i = 1, #leases / 14 do ids[i] = sub(leases, 14 * i - 13, 14 * i - 8) end
local held = fetch('HMGET', RUNNING, ids)
local asked
if notes() then
  local fields = {}
  for i = 1, #ids do fields[i] = 'c' .. ids[i] end
  asked = fetch('HMGET', NOTES, fields)
end
for i = 1, #ids do
  local h = held[i]
  local expiry = h and sub(h, 1, 8) == sub(leases, 14 * i - 7, 14 * i) and parse('>I6', h, 9)
  if not expiry or expiry <= now then
    answers[i] = 's'
  else
    local deadline = started_at(sub(h, 3, 8)) + parse('>I5', h, 15)
    local extended = math.max(expiry, math.min(now, deadline) + lease_ms)
    renewed[#renewed + 1] = ids[i]
    renewed[#renewed + 1] = sub(h, 1, 8) .. pack('>I6', extended) .. sub(h, 15)
    answers[i] = ((asked and asked[i]) or deadline <= now) and 'c' or 'o'
  end
end
if #renewed > 0 then each('HSET', RUNNING, renewed) end
local tally = save()
return {now, meta.next, tally, meta.paused, concat(answers)}
