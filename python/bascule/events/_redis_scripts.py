"""What Redis does in one step for :class:`RedisEventBus`.

Keys of a topic share a hash tag, so they live in one slot of a cluster:

- ``bascule:events:{TOPIC}:N``: stream of partition N
- ``bascule:events:{TOPIC}:N:lease:GROUP``: which member reads partition N for a group
- ``bascule:events:{TOPIC}:members:GROUP``: members by the time at which they count as dead
- ``bascule:events:{TOPIC}:dead:GROUP``: events that the group's handler could not handle
- ``bascule:events:{TOPIC}:bell``: a short stream that wakes who waits for events
- ``bascule:events:{TOPIC}:partitions``: their number, the same for everybody
"""

from __future__ import annotations

from bascule._redis import RedisScript

__all__ = ["ADVANCE", "BEAT", "BURY", "DISCARD", "LEAVE", "PUBLISH", "REVIVE", "SURVEY"]

# KEYS: partitions, bell, streams; ARGV: number of partitions, which of them rang, then place of the
# stream among KEYS and data, an event after the other. All of a topic's events or none, in order.
PUBLISH = RedisScript("""
local count = redis.call('GET', KEYS[1])
if not count then redis.call('SET', KEYS[1], ARGV[1])
elseif count ~= ARGV[1] then return tonumber(count) end
for i = 3, #ARGV, 2 do
  redis.call('XADD', KEYS[tonumber(ARGV[i])], '*', 'e', ARGV[i + 1])
end
redis.call('XADD', KEYS[2], 'MAXLEN', '64', '*', 'p', ARGV[2])
return 0
""")

# Says that a member lives, renews its leases, and takes what is free of its fair share.
# KEYS: partitions, members, then lease and stream of each partition; ARGV: member, lease in ms, group,
# number of partitions. Returns the fair share and the partitions that are the member's now.
BEAT = RedisScript("""
local count = redis.call('GET', KEYS[1])
if not count then redis.call('SET', KEYS[1], ARGV[4])
elseif count ~= ARGV[4] then return {-tonumber(count)} end
local me, span, group, total = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZADD', KEYS[2], now + span, me)
redis.call('PEXPIRE', KEYS[2], span * 2)
local members = redis.call('ZRANGE', KEYS[2], 0, -1)
table.sort(members)
local share = math.floor(total / #members)
for place = 1, total % #members do
  if members[place] == me then share = share + 1 end
end
local held, free = {}, {}
for p = 0, total - 1 do
  local owner = redis.call('GET', KEYS[3 + 2 * p])
  if owner == me then
    redis.call('PEXPIRE', KEYS[3 + 2 * p], span)
    held[#held + 1] = p
  elseif not owner then
    free[#free + 1] = p
  end
end
for _, p in ipairs(free) do
  if #held >= share then break end
  local stream = KEYS[4 + 2 * p]
  redis.call('SET', KEYS[3 + 2 * p], me, 'PX', span)
  local made = redis.pcall('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
  if made.err and not string.find(made.err, 'BUSYGROUP') then return redis.error_reply(made.err) end
  local from = '0-0'
  repeat
    local claimed = redis.call('XAUTOCLAIM', stream, group, me, 0, from, 'COUNT', 1000, 'JUSTID')
    from = claimed[1]
  until from == '0-0'
  for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    if consumer[2] ~= me then redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer[2]) end
  end
  held[#held + 1] = p
end
table.insert(held, 1, share)
return held
""")

# Acknowledges what is handled and gives what comes next, if the member still has the lease.
# KEYS: lease, stream; ARGV: member, group, count, where to begin ('>' for what nobody has had), ids.
# Returns false without the lease; else how often the first entry was handed out, then the entries.
ADVANCE = RedisScript("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return false end
for i = 5, #ARGV, 500 do
  redis.call('XACK', KEYS[2], ARGV[2], unpack(ARGV, i, math.min(i + 499, #ARGV)))
end
local count = tonumber(ARGV[3])
if count == 0 then return {0} end
local read = redis.call('XREADGROUP', 'GROUP', ARGV[2], ARGV[1], 'COUNT', count,
                        'STREAMS', KEYS[2], ARGV[4])
if not read or #read[1][2] == 0 then return {0} end
local entries, deliveries = read[1][2], 1
if ARGV[4] ~= '>' then
  local id = entries[1][1]
  local pending = redis.call('XPENDING', KEYS[2], ARGV[2], id, id, 1)
  if #pending > 0 then deliveries = pending[1][4] end
end
return {deliveries, entries}
""")

# Moves an entry to the dead letters. KEYS: lease, stream, dead letters; ARGV: member, group, id, the
# most dead letters, then names and values. Returns false without the lease, 0 without room, else 1.
BURY = RedisScript("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return false end
if redis.call('XLEN', KEYS[3]) >= tonumber(ARGV[4]) then return 0 end
redis.call('XADD', KEYS[3], '*', unpack(ARGV, 5))
redis.call('XACK', KEYS[2], ARGV[2], ARGV[3])
return 1
""")

# Gives up leases, and membership if asked to. KEYS: members, leases; ARGV: member, whether it leaves.
LEAVE = RedisScript("""
for i = 2, #KEYS do
  if redis.call('GET', KEYS[i]) == ARGV[1] then redis.call('DEL', KEYS[i]) end
end
if ARGV[2] == '1' then redis.call('ZREM', KEYS[1], ARGV[1]) end
return 1
""")

# Trims what every group has handled and nobody may want any more, and tells what is left to handle.
# KEYS: streams; ARGV: milliseconds that entries stay in any case.
# Returns group, events and age of the oldest in ms, one after the other, summed over the streams.
SURVEY = RedisScript("""
local function parts(id)
  local ms, n = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(n)
end
local function before(a, b)
  local am, an = parts(a)
  local bm, bn = parts(b)
  return am < bm or (am == bm and an < bn)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lags, ages, names = {}, {}, {}
for _, stream in ipairs(KEYS) do
  if redis.call('EXISTS', stream) == 1 then
    local keep = string.format('%.0f-0', now - tonumber(ARGV[1]))
    for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
      local group = {}
      for i = 1, #info, 2 do group[info[i]] = info[i + 1] end
      local name, last = group['name'], group['last-delivered-id']
      if not lags[name] then
        lags[name], ages[name] = 0, 0
        names[#names + 1] = name
      end
      local unread = group['lag']
      if not unread then unread = redis.call('XLEN', stream) end
      lags[name] = lags[name] + group['pending'] + unread
      local oldest
      if group['pending'] > 0 then
        oldest = redis.call('XPENDING', stream, name)[2]
      else
        local following = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)
        if #following > 0 then oldest = following[1][1] end
      end
      if oldest then
        ages[name] = math.max(ages[name], now - parts(oldest))
        if before(oldest, keep) then keep = oldest end
      end
    end
    redis.call('XTRIM', stream, 'MINID', keep)
  end
end
local answer = {}
for _, name in ipairs(names) do
  answer[#answer + 1] = name
  answer[#answer + 1] = lags[name]
  answer[#answer + 1] = ages[name]
end
return answer
""")

# Brings dead letters back, for their group only. KEYS: dead letters, bell, streams;
# ARGV: group, ids. Returns how many.
REVIVE = RedisScript("""
local count = 0
for i = 2, #ARGV do
  local found = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])
  if #found > 0 then
    local fields = {}
    for j = 1, #found[1][2], 2 do fields[found[1][2][j]] = found[1][2][j + 1] end
    local p = tonumber(fields['p'])
    redis.call('XADD', KEYS[3 + p], '*', 'e', fields['e'], 'for', ARGV[1])
    redis.call('XADD', KEYS[2], 'MAXLEN', '64', '*', 'p', fields['p'])
    redis.call('XDEL', KEYS[1], ARGV[i])
    count = count + 1
  end
end
return count
""")

# Forgets a group. KEYS: members, dead letters, then lease and stream of each partition; ARGV: group.
DISCARD = RedisScript("""
redis.call('DEL', KEYS[1], KEYS[2])
for i = 3, #KEYS, 2 do
  redis.call('DEL', KEYS[i])
  if redis.call('EXISTS', KEYS[i + 1]) == 1 then
    redis.call('XGROUP', 'DESTROY', KEYS[i + 1], ARGV[1])
  end
end
return 1
""")
