-- Makes dead lifecycle events wait for delivery again, the oldest first.
--
-- KEYS: 1 the stream of waiting events, 2 the stream of dead events
-- ARGV: 1 how many events may wait, 2 how many to move at most
--
-- The reply: how many were moved.

local call = redis.call
local space = math.min(tonumber(ARGV[2]), tonumber(ARGV[1]) - call('XLEN', KEYS[1]))
if space <= 0 then return 0 end
local entries = call('XRANGE', KEYS[2], '-', '+', 'COUNT', space)
for _, entry in ipairs(entries) do
  local fields = {}
  for at = 1, #entry[2], 2 do fields[entry[2][at]] = entry[2][at + 1] end
  call('XADD', KEYS[1], '*', 'i', fields.i, 'c', fields.c, 't', fields.t, 'n', '', 's', 0)
  call('XDEL', KEYS[2], entry[1])
end
return #entries
