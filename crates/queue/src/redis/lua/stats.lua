-- Counts the queue. ARGV: settings.
-- The heads of up to 16 priorities tell how long the first in line waits.
-- Replies: now, next, counts of the seven states, live bytes, paused, forgotten, enqueued and finished in the last minute, then
-- per head: record, what earlier attempts left.
local due, running = call('ZCARD', DUE), call('HLEN', RUNNING)
local rates = {}
for _, letter in ipairs({'e', 'f'}) do
  local slots, sum = {}, 0
  for i = 0, 59 do slots[i + 1] = letter .. i end
  for _, slot in ipairs(call('HMGET', META, unpack(slots))) do
    local at = floor((slot or 0) / RATE)
    if second - at < 60 and at <= second then sum = sum + slot % RATE end
  end
  rates[letter] = sum
end
local reply = {now, meta.next, due - meta.retryable, meta.live - due - running, running, meta.retryable, call('ZCARD', COMPLETED),
  call('ZCARD', CANCELLED), call('ZCARD', DISCARDED), meta.bytes, meta.paused, meta.forgotten, rates.e, rates.f}
local from = '-inf'
for _ = 1, 16 do
  local head = call('ZRANGEBYSCORE', LINE, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if not head[1] then break end
  reply[#reply + 1] = call('HGET', JOBS, head[1])
  reply[#reply + 1] = notes() and call('HGET', NOTES, 't' .. head[1]) or ''
  from = string.format('%.0f', (floor(head[2] / TURNS) + 1) * TURNS)
end
return reply
