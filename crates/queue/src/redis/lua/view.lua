-- How a job is told: state, record, what earlier attempts left, what is held for the running one, when it is due, whether it
-- is asked to stop, its report, its end; '' where there is none. Included after the rules, before the scripts that look.
-- An unknown job is false.
local function view(id, record)
  record = record or call('HGET', JOBS, id)
  if not record then return false end
  local over = call('HGET', ENDS, id)
  if over then return {byte(over) % APART, record, '', '', '', '', '', over} end
  local note_of = notes() and call('HMGET', NOTES, 't' .. id, 'c' .. id, 'r' .. id) or {}
  local held, due = call('HGET', RUNNING, id) or '', call('ZSCORE', DUE, id) or ''
  local state = AVAILABLE
  if held ~= '' then
    state = IS_RUNNING
  elseif due ~= '' then
    state = note_of[1] and sub(note_of[1], 1, 2) ~= '\0\0' and RETRYABLE or SCHEDULED
  end
  return {state, record, note_of[1] or '', held, due, note_of[2] and '1' or '', note_of[3] or '', ''}
end
