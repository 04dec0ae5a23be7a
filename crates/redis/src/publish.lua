-- Publishes messages: numbers their events, keeps them in their rooms' backlogs, and sends them out.
--
-- KEYS: position and backlog (or the position again, if there is none) of each message's room. All are in
--       one slot if there are slots.
-- ARGV: how long a position is kept, in ms; then for each message: its room's channel (not a key: Redis
--       would miss it while its slot moves), how many events it has, how many events the backlog keeps
--       (0: it has none), for how long, in ms, and the encoded events.
--
-- A position is '<epoch> <start> <sequence> <writer>'. The writer is this server's replication id: when
-- another server wrote it, or nobody, a new epoch begins. Epochs are microseconds since 1970, so they grow.
-- Numbers stay below 2^53, where Lua's are exact; '%.0f' because tostring() would round them.

local writer = string.sub(string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)'), 1, 16)

for message = 1, #KEYS / 2 do
  local position, backlog, channel = KEYS[message * 2 - 1], KEYS[message * 2], ARGV[message * 5 - 3]
  local count, kept = tonumber(ARGV[message * 5 - 2]), tonumber(ARGV[message * 5 - 1])
  local kept_ms, events = ARGV[message * 5], ARGV[message * 5 + 1]

  local epoch, start, sequence, last_writer
  local stored = redis.call('GET', position)
  if stored then
    epoch, start, sequence, last_writer = string.match(stored, '^(%d+) (%d+) (%d+) (%x+)$')
  elseif kept > 0 then
    redis.call('DEL', backlog) -- numbers begin anew, and a stream's ids must grow
  end
  local first = tonumber(sequence or 0) + 1
  if last_writer ~= writer then
    local time = redis.call('TIME')
    local now = time[1] * 1000000 + time[2]
    epoch = string.format('%.0f', math.max(now, tonumber(epoch or 0) + 1))
    start = string.format('%.0f', first)
  end
  local last = first + count - 1

  local name = string.format('%s %s %.0f ', epoch, start, last)
  redis.call('SET', position, name .. writer, 'PX', ARGV[1])
  local sent = string.format('%s %s %.0f %d\n', epoch, start, first, count) .. events
  if kept > 0 then
    -- A message is kept under its last event's number; those that end before the last `kept` events go.
    local oldest = string.format('%.0f', math.max(last - kept + 1, 0))
    redis.call('XADD', backlog, 'MINID', '=', oldest, string.format('%.0f-0', last), 'm', sent)
    redis.call('PEXPIRE', backlog, kept_ms)
  end
  redis.call('SPUBLISH', channel, sent)
end
return redis.status_reply('OK')
