-- Adds records to the ledger, and reads the records after a position.
--
-- KEYS: the ledger's position, and the list of its records.
-- ARGV: 1 the epoch up to which the node has read the ledger ('-': it has not)
--       2 how many records of this epoch it has read
--       3 how many records to read at most
--       4 how many records the ledger keeps at most
--       then for each record to add: the second since 1970 at which it expires, and its content
--
-- A position is '<epoch> <count> <writer> <last>': 'writer' is this server's replication id, and
-- 'last' is the second at which the last record expires. A new epoch begins if another server
-- wrote the position, because records may be lost then, and if records have got other places. Epochs
-- are microseconds since 1970, so they grow. Each item of the list is '<second> <content>'.
--
-- The reply: 1 if the reading starts over, the epoch, how many of its records the node has read now,
-- 1 if there are more, and the items.

local call, match = redis.call, string.match

local CHUNK = 1000 -- arguments of one RPUSH

local known_epoch, page, max = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local added = (#ARGV - 4) / 2

local info = call('INFO', 'replication')
local _, before_id = string.find(info, 'master_replid:', 1, true)
local writer = string.sub(info, before_id + 1, before_id + 16)
local time = call('TIME')
local now = tonumber(time[1])

local epoch, count, last_writer, last = match(call('GET', KEYS[1]) or '', '^(%d+) (%d+) (%x+) (%d+)$')
count, last = tonumber(count or 0), tonumber(last or 0)

local function begin_epoch()
  epoch = string.format('%.0f', math.max(time[1] * 1000000 + time[2], (tonumber(epoch) or 0) + 1))
end

local function store()
  local lifetime = string.format('%.0f', math.max(1, last - now) * 1000)
  call('SET', KEYS[1], string.format('%s %d %s %.0f', epoch, count, writer, last), 'PX', lifetime)
  call('PEXPIRE', KEYS[2], lifetime)
end

if added > 0 and count + added > max then
  -- A record can occur several times: after a loss, each node adds what it misses.
  local kept, is_kept = {}, {}
  for _, item in ipairs(call('LRANGE', KEYS[2], 0, -1)) do
    if tonumber(match(item, '^%d+')) > now and not is_kept[item] then
      kept[#kept + 1], is_kept[item] = item, true
    end
  end
  if #kept + added > max then return redis.error_reply('LEDGERFULL the ledger accepts no more records') end
  call('DEL', KEYS[2])
  for from = 1, #kept, CHUNK do
    call('RPUSH', KEYS[2], unpack(kept, from, math.min(from + CHUNK - 1, #kept)))
  end
  count = #kept
  begin_epoch()
end

if epoch and last_writer ~= writer then
  begin_epoch()
  store()
end

if added > 0 then
  if not epoch then
    call('DEL', KEYS[2])
    begin_epoch()
  end
  for at = 5, #ARGV, 2 do
    last = math.max(last, tonumber(ARGV[at]))
    count = call('RPUSH', KEYS[2], ARGV[at] .. ' ' .. ARGV[at + 1])
  end
  store()
end

epoch = epoch or ''
local from = known_epoch == epoch and tonumber(ARGV[2]) or 0
local items = call('LRANGE', KEYS[2], from, from + page - 1)
local read = from + #items
return { known_epoch == epoch and 0 or 1, epoch, read, read < count and 1 or 0, items }
