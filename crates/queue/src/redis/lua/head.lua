-- What every script of a queue begins with: KEYS as named below (all of one queue, in one slot), ARGV[1] the settings.
-- Ids are the job's number in 6 bytes, big-endian, so that equal scores stand in the order of submission; keys.rs has the
-- table of keys, record.rs the layout of records. No function is made here: the calls that matter need none.
local META, JOBS, LINE, DUE, RUNNING, EXPIRIES, GRANTED, NOTES, LANES, WAITING, DEDUP, EXPIRING, ENDS, COMPLETED, CANCELLED,
  DISCARDED, LARGE, BLOCKS, COUNTS, LOG, IDEMPOTENCY, AGES, OP = unpack(KEYS)
local call, pack, parse, sub, byte, floor, concat = redis.call, struct.pack, struct.unpack, string.sub, string.byte, math.floor, table.concat

-- 2^44 turns per priority: the line's score is priority * TURNS + turn and stays below 2^52, exact in a double.
local TURNS = 17592186044416
-- 2020-01-01 in seconds: numbers and grants begin with the time since then, so that none is used twice, whatever tail of
-- its history a Redis has lost.
local BIRTH = 1577836800
local DAY, HALF_HOUR = 86400000, 1800000
local manual, lease_ms, jobs_max, bytes_max, overflow, key_limit, running_limit, finished_max, finished_bytes_max, history_max,
  idempotency_max, idempotency_window, chance = parse('>I6I5I6I6BI4I4I6I6I6I6I6I4', ARGV[1])
local now = manual
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000 + floor(time[2] / 1000)
end

local second = floor(now / 1000)
-- What was enqueued and finished in each of the last 60 seconds: the second and the count in one number.
local RATE = 1048576
local E_SLOT, F_SLOT = 'e' .. second % 60, 'f' .. second % 60
-- The queue's numbers. `next`: nothing is due before. `waiting`: somebody wants to be told when there is something to claim.
-- `finished`, `kept`: finished jobs and their bytes. `place`: of the newest entry of the log.
local loaded = call('HMGET', META, 'number', 'grant', 'turn', 'live', 'bytes', 'retryable', 'finished', 'kept', 'place', 'next',
  'paused', 'waiting', 'answers', 'forgotten', E_SLOT, F_SLOT)
local NEVER = 281474976710655
local BASE = sub(META, 1, -5)
