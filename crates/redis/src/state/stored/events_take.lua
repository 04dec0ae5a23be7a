-- Removes the lifecycle events that the backend has accepted, and returns the next ones. Only one node
-- at a time gets events.
--
-- KEYS: 1 the stream of waiting events, 2 the stream of dead events, 3 the number of the last record of
--       each node whose event was delivered, 4 single values (see `events_report.lua`)
-- ARGV: 1 the node, 2 how long no other node gets events (ms), 3 how many events to return
--       4 how long an event may wait (ms), 5 how many dead events are kept
--       then for each accepted event: its place and its id
--
-- The reply: 0 if another node gets events, otherwise 1 and the events.

local call, match = redis.call, string.match
local waiting, dead, delivered_of, state = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local EXPIRED_AT_ONCE = 500

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local deliverer = call('HMGET', state, 'deliverer', 'until')
if deliverer[1] and deliverer[1] ~= ARGV[1] and tonumber(deliverer[2]) > now then return { 0 } end
call('HSET', state, 'deliverer', ARGV[1], 'until', now + ARGV[2])

-- The fields of an entry by their names.
local function fields_of(entry)
  local fields = {}
  for at = 1, #entry[2], 2 do fields[entry[2][at]] = entry[2][at + 1] end
  return fields
end

for at = 6, #ARGV, 2 do
  local entry = call('XRANGE', waiting, ARGV[at], ARGV[at])[1]
  local fields = entry and fields_of(entry)
  -- After Redis has lost data, another event may have this place.
  if fields and fields.i == ARGV[at + 1] then
    if fields.n ~= '' then call('HSET', delivered_of, fields.n, fields.s) end
    call('XDEL', waiting, ARGV[at])
  end
end

local oldest = now - ARGV[4]
for _, entry in ipairs(call('XRANGE', waiting, '-', '+', 'COUNT', EXPIRED_AT_ONCE)) do
  if tonumber(match(entry[1], '^%d+')) >= oldest then break end
  local fields = fields_of(entry)
  call('XADD', dead, 'MAXLEN', ARGV[5], '*', 'i', fields.i, 'c', fields.c, 't', fields.t, 'w', 'expired')
  call('XDEL', waiting, entry[1])
end

if ARGV[3] == '0' then return { 1, {} } end
local events = {}
for _, entry in ipairs(call('XRANGE', waiting, '-', '+', 'COUNT', ARGV[3])) do
  local fields = fields_of(entry)
  events[#events + 1] = { entry[1], fields.i, fields.t, fields.c }
end
return { 1, events }
