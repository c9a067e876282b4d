-- Deletes jobs of one state for good. ARGV: settings, state, how many to look at, how many to pass over.
-- Scheduled and retryable jobs wait in one set, so those of the other state are passed over.
-- Replies: now, next, tally, how many went, how many to pass over next time, 1 when there may be more.
call('HDEL', META, '')
local state, limit, offset = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local ids, looked, count = {}, 0, 0
if SETS[state] then
  ids = call('ZRANGE', SETS[state], 0, limit - 1)
  looked, count = #ids, #ids
  prune(state, ids)
else
  if state == AVAILABLE then
    ids = call('ZRANGE', LINE, 0, limit - 1)
    if #ids == 0 then
      for _, member in ipairs(call('ZRANGE', WAITING, 0, limit - 1)) do ids[#ids + 1] = sub(member, 10) end
    end
  else
    ids = call('ZRANGE', DUE, offset, offset + limit - 1)
  end
  looked = #ids
  local records = fetch('HMGET', JOBS, ids)
  for i = 1, #ids do
    local id = ids[i]
    if state == AVAILABLE or (tried(id) > 0) == (state == RETRYABLE) then
      local o = about(records[i])
      local attempt = leave(id, o)
      release_names(id, o, attempt)
      if notes() then call('HDEL', NOTES, 't' .. id) end
      forget(id, o.apart)
      note(PRUNED, id, pack('>I2', attempt))
      count = count + 1
    end
  end
end
flush()
local tally = save()
return {now, meta.next, tally, count, offset + looked - count, looked == limit and 1 or (state == AVAILABLE and looked > 0 and 1 or 0)}
