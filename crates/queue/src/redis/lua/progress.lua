-- Notes reports of running attempts. ARGV: settings, leases (14 bytes each: id, attempt, grant), a report for each.
-- A report is a double and a note; it is told to followers but not logged.
-- Replies: now, next, outcomes (a letter each).
call('HDEL', META, '')
local leases, ids, outcomes, told = ARGV[2], {}, {}, {}
for i = 1, #leases / 14 do ids[i] = sub(leases, 14 * i - 13, 14 * i - 8) end
local held = fetch('HMGET', RUNNING, ids)
for i = 1, #ids do
  local h = held[i]
  if h and sub(h, 1, 8) == sub(leases, 14 * i - 7, 14 * i) and parse('>I6', h, 9) > now then
    outcomes[i] = 'o'
    call('HSET', NOTES, 'r' .. ids[i], ARGV[2 + i])
    told[#told + 1] = ids[i] .. sub(h, 1, 2) .. pack('>I2', #ARGV[2 + i]) .. ARGV[2 + i]
  else
    outcomes[i] = 's'
  end
end
if #told > 0 then
  call('PUBLISH', BASE .. 'events', pack('>I6I6', 0, now) .. 'P' .. pack('>I4', #told) .. concat(told))
end
return {now, meta.next, concat(outcomes)}
