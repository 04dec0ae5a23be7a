-- Publishes messages: gives their events offsets, keeps them in their rooms' histories, and sends them out.
--
-- KEYS: position and history (or the position again, if the room has no history) of each message's room. In a
--       cluster, all are in one slot.
-- ARGV: how long a position is kept, in ms, and how long if nobody ever read the room; then for each message:
--       1 its room's channel (not a key: Redis would miss it while its slot moves)
--       2 its origin, as ' <id>:'
--       3 the number that the origin gave to the message's last event
--       4 how many events it has
--       5 how many messages the history keeps at least (0: none); each has one event or more
--       6 for how long it keeps them, in ms
--       7 the encoded events
--
-- A position is '<epoch> <start> <offset> <writer> <read> <origin>:<number> ...'.
-- The writer is this server's replication id: when another server wrote the position, or nobody, a new epoch
-- begins. Epochs are microseconds since 1970, so they grow. 'read' is 1 once a publish has found a subscriber.
-- The origins come most recent first, each with the number of the last event that it published. An origin's numbers
-- grow, so a message whose number is not larger was published before: its publisher missed the reply and tries again,
-- or gave up on it long ago. It is not published again.
--
-- Lua writes numbers with 14 digits, so offsets are exact up to 10^14. Epochs are larger and need
-- '%.0f'.

-- 64 origins whose numbers have 8 digits: MAX_ORIGINS, in characters.
local MAX_ORIGINS_LENGTH = 1650

local call, find, sub, match = redis.call, string.find, string.sub, string.match

local info = call('INFO', 'replication')
local _, before_id = find(info, 'master_replid:', 1, true)
local writer = sub(info, before_id + 1, before_id + 16)

local function store(position, epoch_and_start, offset, is_read, origins)
  local text = epoch_and_start .. offset .. ' ' .. writer .. ' ' .. is_read .. origins
  call('SET', position, text, 'PX', is_read == '1' and ARGV[1] or ARGV[2])
end

local function publish(message)
  local position, history = KEYS[message * 2 - 1], KEYS[message * 2]
  local at = message * 7 - 4
  local origin, number, count, kept = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4])

  local epoch_and_start, offset, last_writer, is_read, origins =
    match(call('GET', position) or '', '^(%d+ %d+ )(%d+) (%x+) ([01])(.*)$')
  if offset then
    local from, to = find(origins, origin, 1, true)
    if from then
      local published, less_recent = match(origins, '^(%d+)(.*)', to + 1)
      if tonumber(published) >= tonumber(number) then return end
      origins = sub(origins, 1, from - 1) .. less_recent
    elseif #origins > MAX_ORIGINS_LENGTH then
      origins = match(origins, '^(.*) ') -- drops the least recent
    end
  else
    call('DEL', history) -- its events have offsets of another epoch
    offset, is_read, origins = 0, '0', ''
  end

  -- Each number is made into text once: that costs more than any other step but the commands.
  local last = offset + count .. ''
  local first = count == '1' and last or offset + 1 .. ''
  if last_writer ~= writer then
    local time = call('TIME')
    local now = time[1] * 1000000 + time[2]
    local epoch = epoch_and_start and match(epoch_and_start, '^%d+') or 0
    epoch_and_start = string.format('%.0f %.0f ', math.max(now, epoch + 1), first)
  end

  local sent = epoch_and_start .. first .. ' ' .. count .. '\n' .. ARGV[at + 6]
  -- The keys first, then the channel: if a step fails, nothing was sent at an offset that will be given
  -- again.
  if kept > 0 then
    -- Messages beyond the last `kept` are removed a few at a time: that costs less.
    if call('RPUSH', history, sent) > kept * 1.125 then call('LTRIM', history, -kept, -1) end
    call('PEXPIRE', history, ARGV[at + 5])
  end
  origins = origin .. number .. origins
  store(position, epoch_and_start, last, is_read, origins)
  if call('SPUBLISH', ARGV[at], sent) > 0 and is_read == '0' then
    store(position, epoch_and_start, last, '1', origins)
  end
end

-- A failure in one room does not affect the others. The reply has the failed messages' places and errors.
local failed = {}
for message = 1, #KEYS / 2 do
  local ok, reason = pcall(publish, message)
  if not ok then
    failed[#failed + 1] = message
    failed[#failed + 1] = type(reason) == 'table' and reason.err or reason
  end
end
return failed
