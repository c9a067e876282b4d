-- Looks at one job. ARGV: settings, id.
-- With view.lua.
-- Replies: now, next, the view or nil.
return {now, meta.next, view(ARGV[2])}
