-- Calls a job off. ARGV: settings, id.
-- With view.lua. A running job is only asked: its worker learns it at once by a message, or with its next beat.
-- Replies: now, next, tally, what came of it (n unknown, x does not apply, o done), the job before or nil.
call('HDEL', META, '')
local id = ARGV[2]
local before = view(id)
if not before then return {now, meta.next, '', 'n'} end
local state = before[1]
if state == CANCEL then return {now, meta.next, '', 'o', before} end
if state > CANCEL or state == COMPLETE then return {now, meta.next, '', 'x', before} end
if state == IS_RUNNING then
  if before[6] == '' then
    has_notes = true
    call('HSET', NOTES, 'c' .. id, '')
    note(CANCEL_ASKED, id, sub(before[4], 1, 2))
    call('PUBLISH', BASE .. 'wake', 'c' .. id)
  end
else
  local o = about(before[2])
  local attempt, started, failure = leave(id, o)
  finish(id, o, CANCEL, attempt, started, failure)
end
local tally = save()
return {now, meta.next, tally, 'o', before}
