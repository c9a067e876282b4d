-- Holds off claims, or lets them through again. ARGV: settings, '1' or '0'.
-- Running jobs go on.
-- Replies: now, next, tally.
meta.paused = tonumber(ARGV[2])
local tally = save()
return {now, meta.next, tally}
