-- Does what is due: rescue, promote, expire, prune, up to a bound. ARGV: settings.
-- The other scripts do the same on their way; this one is for when nothing else happens.
-- Replies: now, next (now, when there is more to do), tally, live, bytes.
call('HDEL', META, '')
local more = upkeep(500)
local tally = save()
return {now, more and now or meta.next, tally, meta.live, meta.bytes}
