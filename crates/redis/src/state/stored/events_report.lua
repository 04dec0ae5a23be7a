-- Applies a node's records of lifecycle events, and ends what lost nodes have open. The store in
-- memory (`core/events/memory.rs`) does the same.
--
-- KEYS: 1 the stream of the events that wait for delivery      i id, c content, t time, n node, s number
--       2 the stream of dead events                            i id, c content, t time, w why
--       3 the nodes: when each has reported last ('L<ms>': lost, 'D<ms>': lost and ended completely)
--       4 the number of the last applied record of each node
--       5 the number of the last record of each node whose event was delivered
--       6 the groups: {count, id of the end, and the event that waits: id, content, time}
--       7 the groups whose end waits, by the time at which it is an event
--       8 single values: last_report, no_end_before, overflowed, deliverer, until
--       9 what the node has open: {group, id of the end, content of the end} by key
--      10 what the lost node has open
-- ARGV: 1 the node, 2 whether it is back after it was lost, 3 the last applied record that it knows of
--       4 the lost node, or ''
--       5 how many events may wait, 6 how many dead events are kept
--       7 after how long a node is lost, 8 how long the end of a group waits, 9 what time without any
--         report is an outage of Redis (all in ms)
--      10 how many ends of the lost node are reported at most
--      11 how long the keys are kept, in s
--       then for each record: number, time, key, group, 'b' (begins) or 'e' (ends), the event's id and
--       content, and the id and content of the event of its end. What is missing is ''.
--
-- The reply: the last applied record, the last delivered one, 1 if the node counts as lost, a lost node
-- or '', how many ends were reported, how many events wait, for how long the first one has waited (ms),
-- how many are dead, and how many of those because too many were waiting.

local call, match = redis.call, string.match
local pack, unpack_packed = cmsgpack.pack, cmsgpack.unpack

local waiting, dead, nodes, applied_of, delivered_of = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local groups, due, state, open, open_of_lost = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local node, lost_node = ARGV[1], ARGV[4]
local max_waiting, max_dead = tonumber(ARGV[5]), ARGV[6]
local lost_after, return_time, outage_after = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])

local FIRST_RECORD, RECORD = 12, 9
local FORGET_AFTER = 24 * 3600 * 1000 -- how long a lost node is remembered, in ms
local MAX_DUE = 500

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local count_waiting = call('XLEN', waiting)

local function append(id, content, at, origin, number)
  if content == '' then return end
  if count_waiting >= max_waiting then
    call('HINCRBY', state, 'overflowed', 1)
    call('XADD', dead, 'MAXLEN', max_dead, '*', 'i', id, 'c', content, 't', at, 'w', 'overflow')
    return
  end
  count_waiting = count_waiting + 1
  call('XADD', waiting, '*', 'i', id, 'c', content, 't', at, 'n', origin, 's', number)
end

-- Counts a beginning. Returns whether it is the first of its group.
local function begin_in(group, end_id, is_new)
  local packed = call('HGET', groups, group)
  local count = 0
  if packed then
    local known = unpack_packed(packed)
    count, end_id = known[1], known[2]
    call('ZREM', due, group)
  end
  call('HSET', groups, group, pack({ count + (is_new and 1 or 0), end_id, '', '', '' }))
  return not packed
end

-- Counts an end, which is an event later if it is the last of its group.
local function end_in(group, id, content, at, was_open)
  local packed = call('HGET', groups, group)
  local count, end_id = 0, ''
  if packed then
    if not was_open then return end
    local known = unpack_packed(packed)
    count, end_id = math.max(0, known[1] - 1), known[2]
    if count > 0 then
      call('HSET', groups, group, pack({ count, end_id, '', '', '' }))
      return
    end
  end
  -- If Redis has lost the group, its nodes report what it has again.
  call('HSET', groups, group, pack({ 0, end_id, end_id ~= '' and end_id or id, content, at }))
  call('ZADD', due, now + return_time, group)
end

local function apply(at)
  local number, record_time, key, group = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local id, content, end_id, end_content = ARGV[at + 5], ARGV[at + 6], ARGV[at + 7], ARGV[at + 8]
  if ARGV[at + 4] == 'b' then
    local is_new = call('HSET', open, key, pack({ group, end_id, end_content })) == 1
    if group == '' or begin_in(group, end_id, is_new) then append(id, content, record_time, node, number) end
  else
    local was_open = call('HDEL', open, key) == 1
    if group == '' then
      append(id, content, record_time, node, number)
    else
      end_in(group, id, content, record_time, was_open)
    end
  end
end

-- While Redis was unreachable, no node was lost.
local known_nodes = call('HGETALL', nodes)
local last_report = tonumber(call('HGET', state, 'last_report'))
local was_reachable = last_report and now - last_report <= outage_after
call('HSET', state, 'last_report', now)
local seen, stored = {}, {}
for at = 1, #known_nodes, 2 do
  local name, kind, last = known_nodes[at], match(known_nodes[at + 1], '^(%a?)(%d+)$')
  seen[name] = { kind, was_reachable and tonumber(last) or now }
  stored[name] = known_nodes[at + 1]
end

local own = seen[node] or { '', now }
if ARGV[2] == '1' then own[1] = '' end
local is_lost = own[1] ~= ''
local applied = tonumber(call('HGET', applied_of, node) or 0)
local has_lost_data = applied < tonumber(ARGV[3])
if not is_lost then
  own[2] = now
  if not has_lost_data then
    local before = applied
    for at = FIRST_RECORD, #ARGV, RECORD do
      local number = tonumber(ARGV[at])
      if number > applied then
        apply(at)
        applied = number
      end
    end
    if applied > before then call('HSET', applied_of, node, applied) end
  end
end
seen[node] = own

local ended = 0
local other = seen[lost_node]
if other and (other[1] == 'L' or (other[1] == '' and now - other[2] > lost_after)) then
  local ends = call('HRANDFIELD', open_of_lost, ARGV[10], 'WITHVALUES')
  for at = 1, #ends, 2 do
    local ending = unpack_packed(ends[at + 1])
    if ending[1] == '' then
      append(ending[2], ending[3], now, '', 0)
    else
      end_in(ending[1], ending[2], ending[3], now, true)
    end
    call('HDEL', open_of_lost, ends[at])
  end
  ended = #ends / 2
  seen[lost_node] = { call('HLEN', open_of_lost) > 0 and 'L' or 'D', other[2] }
end

-- A group ends once all nodes that live have reported after its time, because another one may have
-- a beginning that it could not report before. After an outage or a loss of data, the nodes get time
-- to report what they have again.
if has_lost_data or (last_report and not was_reachable) then
  call('HSET', state, 'no_end_before', now + lost_after)
end
local ends_until = now
for _, seen_node in pairs(seen) do
  local kind, last = seen_node[1], seen_node[2]
  if kind == '' and now - last <= lost_after then ends_until = math.min(ends_until, last) end
end
if now < tonumber(call('HGET', state, 'no_end_before') or 0) then ends_until = 0 end

for _, group in ipairs(call('ZRANGEBYSCORE', due, '-inf', ends_until, 'LIMIT', 0, MAX_DUE)) do
  local packed = call('HGET', groups, group)
  if packed then
    local ends = unpack_packed(packed)
    append(ends[3], ends[4], ends[5], '', 0)
  end
  call('HDEL', groups, group)
  call('ZREM', due, group)
end

local lost = ''
for name, seen_node in pairs(seen) do
  local kind, last = seen_node[1], seen_node[2]
  if kind == 'D' and now - last > FORGET_AFTER then
    call('HDEL', nodes, name)
    call('HDEL', applied_of, name)
    call('HDEL', delivered_of, name)
  else
    local text = kind .. string.format('%.0f', last)
    if text ~= stored[name] then call('HSET', nodes, name, text) end
  end
  if kind == 'L' or (kind == '' and now - last > lost_after) then lost = name end
end

for at = 1, 9 do call('EXPIRE', KEYS[at], ARGV[11]) end

local first = call('XRANGE', waiting, '-', '+', 'COUNT', 1)[1]
return {
  applied,
  tonumber(call('HGET', delivered_of, node) or 0),
  is_lost and 1 or 0,
  lost,
  ended,
  count_waiting,
  first and math.max(0, now - tonumber(match(first[1], '^%d+'))) or 0,
  call('XLEN', dead),
  tonumber(call('HGET', state, 'overflowed') or 0),
}
