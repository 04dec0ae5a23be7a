-- Publishes messages: gives their events offsets, keeps them in their rooms' histories, and sends them out.
--
-- KEYS: position and history (or the position again, if the room has no history) of each message's room. In a
--       cluster, all are in one slot.
-- ARGV: how long a position is kept, in ms, and how long if nobody ever read the room; how many bytes a history has
--       at most; then for each message:
--       1 its room's channel (not a key: Redis would miss it while its slot moves)
--       2 its origin, as ' <id>:'
--       3 the number that the origin gave to the message's last event
--       4 how many events it has
--       5 how many messages the history keeps at least (0: none); each has one event or more
--       6 for how long it keeps them, in ms
--       7 the encoded events
--
-- A position is '<epoch> <start> <offset> <writer> <read> <origin>:<number> ...'. If the bytes of the history are
-- counted, their number comes first among the origins, as that of origin 0.
-- The writer is this server's replication id: when another server wrote the position, or nobody, a new epoch
-- begins. Epochs are microseconds since 1970, so they grow. 'read' is 1 once a publish has found a subscriber.
-- The origins come most recent first, each with the number of the last event that it published. An origin's numbers
-- grow, so a message whose number is not larger was published before: its publisher missed the reply and tries again,
-- or gave up on it long ago. It is not published again. If it is in the history, the reply has its header from there.
--
-- The bytes of a history are counted from the first message that is so large that the history would have too many bytes
-- if all its messages were as large. Until then, the limit of messages is sufficient, and counting would make each
-- publish slower. The count ends with the history. A node that does not count puts its origin before the number, which
-- ends the count, too.
--
-- The reply: a line for each message. A list would cost a publish 3 %. The line of a message that failed is '-' and the
-- error. Otherwise, it is the message's header, '<epoch> <start> <first> <count>', and ' dropped <events>' if events
-- were dropped only because the history had too many bytes. If a message was published before and is not in the history,
-- its header is that of one event at the room's position, which is at or after the message.
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
  local at = message * 7 - 3
  local origin, number, count, kept = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4])

  local epoch_and_start, offset, last_writer, is_read, origins =
    match(call('GET', position) or '', '^(%d+ %d+ )(%d+) (%x+) ([01])(.*)$')
  local bytes, dropped
  if offset then
    local from, to = find(origins, origin, 1, true)
    if from ~= 1 and sub(origins, 1, 18) == ' 0000000000000000:' then
      bytes, origins = match(origins, '^(%d+)(.*)', 19)
      from, to = find(origins, origin, 1, true)
    end
    if from then
      local published, less_recent = match(origins, '^(%d+)(.*)', to + 1)
      if tonumber(published) >= tonumber(number) then
        -- From the newest message on, because a publisher tries again soon. The events have their numbers, so no other
        -- message has the same ones.
        local events, newer, page = ARGV[at + 6], 0, 1
        while kept > 0 do
          local messages = call('LRANGE', history, -newer - page, -newer - 1)
          for index = #messages, 1, -1 do
            local one = messages[index]
            local _, header_end = find(one, '\n', 1, true)
            if #one - header_end == #events and sub(one, header_end + 1) == events then
              return sub(one, 1, header_end - 1)
            end
          end
          if #messages < page then break end
          newer, page = newer + page, page * 2
        end
        return epoch_and_start .. offset .. ' 1'
      end
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

  local header = epoch_and_start .. first .. ' ' .. count
  local sent = header .. '\n' .. ARGV[at + 6]
  -- The keys first, then the channel: if a step fails, nothing was sent at an offset that will be given
  -- again.
  if kept > 0 then
    -- Messages beyond the last `kept` are removed a few at a time: that costs less.
    local length, most = call('RPUSH', history, sent), kept * 1.125
    if length == 1 then bytes = nil end -- they were the bytes of a history that has expired
    if bytes or #sent * most > ARGV[3] + 0 then
      -- A function for this would cost every publish 3 %, because each run of the script would create it.
      if bytes then
        bytes = bytes + #sent
      else
        origins = string.gsub(origins, ' 0000000000000000:%d+', '') -- of a count that a node has ended
        bytes = 0
        for _, one in ipairs(call('LRANGE', history, 0, -1)) do bytes = bytes + #one end
      end
      local max_bytes, excess = tonumber(ARGV[3]), length > most and length - kept or 0
      local removed, page = 0, math.max(excess, 1)
      dropped = 0
      while removed < excess or bytes > max_bytes and removed < length do
        for _, oldest in ipairs(call('LRANGE', history, removed, removed + page - 1)) do
          if removed >= excess and bytes <= max_bytes then break end
          removed, bytes = removed + 1, bytes - #oldest
          -- The limit of messages would have kept these events.
          if removed > length - kept then dropped = dropped + match(oldest, '^%d+ %d+ %d+ (%d+)') end
        end
        page = page * 2
      end
      if removed > 0 then call('LTRIM', history, removed, -1) end
    elseif length > most then
      call('LTRIM', history, -kept, -1)
    end
    call('PEXPIRE', history, ARGV[at + 5])
  end
  origins = origin .. number .. origins
  if bytes then origins = ' 0000000000000000:' .. bytes .. origins end
  store(position, epoch_and_start, last, is_read, origins)
  if call('SPUBLISH', ARGV[at], sent) > 0 and is_read == '0' then
    store(position, epoch_and_start, last, '1', origins)
  end
  if dropped and dropped > 0 then return header .. ' dropped ' .. dropped end
  return header
end

-- A failure in one room does not affect the others.
local reply = {}
for message = 1, #KEYS / 2 do
  local ok, line = pcall(publish, message)
  reply[message] = ok and line or '-' .. (type(line) == 'table' and line.err or line)
end
return table.concat(reply, '\n')
