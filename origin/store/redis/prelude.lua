-- Every script on a queue begins with this. The keys start with those named here; a script takes
-- further keys and arguments in order. A script checks everything before its first write, because
-- Redis undoes nothing. It answers with a code that says why nothing was done; with 'again' and
-- the shape when the caller named the wrong pages or turns; or with 'ok'.
local META, LOG, OFFERS, EXPIRIES = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local QUEUE, KEEP, INCARNATION, NONCE = ARGV[1], ARGV[2], ARGV[4], ARGV[5]
local given = tonumber(ARGV[3])
local now = given -- never below the latest time that the queue has seen

local keysTaken, argsTaken = 4, 5

local function key()
  keysTaken = keysTaken + 1
  return KEYS[keysTaken]
end

local function text()
  argsTaken = argsTaken + 1
  return ARGV[argsTaken]
end

local function number() return tonumber(text()) end

-- int writes whole numbers of any size; Lua's own way loses digits from the fifteenth on.
local function int(n) return string.format('%.0f', n) end

local m = {}       -- the fields of meta that were read
local changes = {} -- those to be written: name, value, name, value
local appended = false

local function num(name) return tonumber(m[name] or 0) end

local function set(name, value)
  if type(value) == 'number' then value = int(value) end
  m[name] = value
  changes[#changes + 1] = name
  changes[#changes + 1] = value
end

local function add(name, n)
  if n ~= 0 then set(name, num(name) + n) end
end

-- open reads meta: what all scripts need, and the fields named.
local function open(...)
  local names = {'incarnation', 'latest', 'number', 'chain', 'owner', 'leaseUntil', 'state', 'issued',
    'turn', 'oldest', 'holdTurns', 'live', 'asleepUntil', ...}
  local values = redis.call('HMGET', META, unpack(names))
  for i, name in ipairs(names) do m[name] = values[i] end
  if not m.incarnation or (INCARNATION ~= '' and INCARNATION ~= m.incarnation) then
    return {'NOTFOUND'}
  end
  now = math.max(now, num('latest'))
end

-- kept is the part of the shape that says which pages and turns there are: the running turn, the
-- oldest one with bitmaps, how many the hold asks for, and the live pages.
local function kept()
  return table.concat({m.turn, m.oldest, m.holdTurns, m.live or ''}, ' ')
end

local function shape() return (m.issued or '0') .. ' ' .. kept() end

local function again(need) return {'again', shape(), need or ''} end

local function leased() return m.owner and m.owner ~= '' and num('leaseUntil') > now end

-- asleep says that the queue is scheduled and nobody has to look after it yet.
local function asleep() return num('asleepUntil') > now end

-- append writes the log's next entry. The chain tells it, and all before it, from what an entry of
-- the same number would be after a failover that lost some: it is a hash of the entry, of the chain
-- before it, and of a name that each run of a script has for itself.
local function append(kind, ...)
  local n = num('number') + 1
  local chain = redis.sha1hex(table.concat({m.chain or '', NONCE, kind, int(n), int(now), ...}, ' '))
  set('number', n)
  set('chain', string.sub(chain, 1, CHAIN_LENGTH))
  redis.call('XADD', LOG, 'MAXLEN', '~', KEEP, int(n) .. '-0', 'k', kind, 't', int(now), 'c', m.chain, ...)
  appended = true
end

-- done writes what changed and answers. It always writes something, also in a repetition that
-- changes nothing: what replicas acknowledge then is everything before it.
local function done(...)
  set('latest', now)
  redis.call('HSET', META, unpack(changes))
  if appended then redis.call('PUBLISH', HINTS, QUEUE) end
  local leaderless = 0
  if not leased() and not asleep() and (m.state ~= 'closed' or redis.call('ZCARD', EXPIRIES) > 0) then
    leaderless = 1
  end
  return {'ok', num('number'), leaderless, shape(), ...}
end

-- free is how many slots stand empty.
local function free()
  local taken = redis.call('ZCARD', EXPIRIES) + redis.call('ZCARD', OFFERS)
  return math.max(num('capacity') - taken, 0)
end

-- place is the page of a position and its offset there, both from 0.
local function place(position)
  local page = math.floor((position - 1) / PAGE)
  return page, position - 1 - page * PAGE
end

-- ensure makes a bitmap at its full size, so that it does not grow by doubling.
local function ensure(bitmap, bytes)
  if redis.call('STRLEN', bitmap) < bytes then
    redis.call('SETRANGE', bitmap, bytes - 1, '\0')
  end
end

-- fill sets the bits from .. to: whole bytes in one piece, and what sticks out before and after.
local function fill(bitmap, from, to)
  local first, last = math.ceil(from / 8), math.floor((to + 1) / 8) - 1
  local function ones(at, n)
    if n > 0 then redis.call('BITFIELD', bitmap, 'SET', 'u' .. n, at, 2 ^ n - 1) end
  end
  if first > last then return ones(from, to - from + 1) end
  ones(from, first * 8 - from)
  redis.call('SETRANGE', bitmap, first, string.rep('\255', last - first + 1))
  ones(last * 8 + 8, to - last * 8 - 7)
end

-- write gives the same value to many fields of a bitmap: u1 for bits, u4 for fates.
local function write(bitmap, width, offsets, value)
  for from = 1, #offsets, 250 do
    local args = {}
    for i = from, math.min(from + 249, #offsets) do
      local n = #args
      args[n + 1], args[n + 2], args[n + 3], args[n + 4] = 'SET', width, '#' .. offsets[i], value
    end
    redis.call('BITFIELD', bitmap, unpack(args))
  end
end

-- bits reads many bits of a bitmap.
local function bits(bitmap, offsets)
  local values = {}
  for from = 1, #offsets, 250 do
    local args = {}
    for i = from, math.min(from + 249, #offsets) do
      local n = #args
      args[n + 1], args[n + 2], args[n + 3] = 'GET', 'u1', offsets[i]
    end
    for _, value in ipairs(redis.call('BITFIELD', bitmap, unpack(args))) do
      values[#values + 1] = value
    end
  end
  return values
end

-- In the hash of missed offers a position's own field counts them; this one holds the log entry
-- of the last lapse.
local LAPSE = 'l'

local function fateOf(bitmap, offset)
  return redis.call('BITFIELD', bitmap, 'GET', 'u4', '#' .. offset)[1]
end

local function setFates(bitmap, offsets, fate)
  ensure(bitmap, FATE_BYTES)
  write(bitmap, 'u4', offsets, fate)
end

-- byPage sorts positions into lists of offsets.
local function byPage(positions)
  local pages = {}
  for _, position in ipairs(positions) do
    local page, offset = place(position)
    local offsets = pages[page]
    if not offsets then
      offsets = {}
      pages[page] = offsets
    end
    offsets[#offsets + 1] = offset
  end
  return pages
end

-- each calls a command with many members, some at a time.
local function each(command, target, members)
  for from = 1, #members, 500 do
    redis.call(command, target, unpack(members, from, math.min(from + 499, #members)))
  end
end

local function unlink(keys)
  for from = 1, #keys, 500 do
    redis.call('UNLINK', unpack(keys, from, math.min(from + 499, #keys)))
  end
end

-- otherKeys are the keys that the script has not taken yet.
local function otherKeys()
  local others = {}
  for i = keysTaken + 1, #KEYS do others[#others + 1] = KEYS[i] end
  return others
end

-- fold writes ascending positions as text, runs folded: 1-5,9.
local function fold(positions)
  local parts, i = {}, 1
  while i <= #positions do
    local j = i
    while positions[j + 1] == positions[j] + 1 do j = j + 1 end
    parts[#parts + 1] = j > i and int(positions[i]) .. '-' .. int(positions[j]) or int(positions[i])
    i = j + 1
  end
  return table.concat(parts, ',')
end

-- parse is the inverse of fold.
local function parse(folded)
  local positions = {}
  for first, last in string.gmatch(folded, '(%d+)%-?(%d*)') do
    for position = tonumber(first), tonumber(last) or tonumber(first) do
      positions[#positions + 1] = position
    end
  end
  return positions
end

-- livePages is the set of live pages.
local function livePages()
  local pages = {}
  for page in string.gmatch(m.live or '', '%d+') do pages[tonumber(page)] = true end
  return pages
end

local function setLive(pages)
  local list = {}
  for page in pairs(pages) do list[#list + 1] = page end
  table.sort(list)
  set('live', table.concat(list, ','))
end

-- A session is stored as its subject, 16 bytes, and start, expiry and id as text.
-- NOBODY stands for the subject where it was lost.
local NOBODY = string.rep('\255', 16)

local function packSession(subject, starts, expires, id)
  return subject .. int(starts) .. ' ' .. int(expires) .. ' ' .. id
end

local function unpackSession(packed)
  local starts, expires, id = string.match(string.sub(packed, 17), '^(%d+) (%d+) (.*)$')
  return string.sub(packed, 1, 16), tonumber(starts), tonumber(expires), id
end

-- running is the session of a position if its expiry has not come.
local function running(sessions, position)
  local packed = redis.call('HGET', sessions, position)
  if packed then
    local subject, starts, expires, id = unpackSession(packed)
    if expires > now then return {subject = subject, starts = starts, expires = expires, id = id} end
  end
end

-- takeSettings stores settings, and from them what scripts go by: asleepUntil is until when a
-- scheduled queue is idle, holdRuns whether the absent lose their place, and rules a digest of all but what remains.
local function takeSettings()
  for _, name in ipairs({'settings', 'state', 'capacity', 'claim', 'window', 'hold', 'maxMissed', 'holdTurns', 'turnLength',
    'identity', 'asleepUntil', 'holdRuns', 'rules'}) do
    set(name, text())
  end
end

-- beginTurn starts the next turn and drops the bitmaps of those that no hold asks for any more.
local function beginTurn(started, dropped)
  local turn = num('turn') + 1
  unlink(dropped)
  set('turn', turn)
  set('turnStarted', started)
  set('oldest', math.max(num('oldest'), turn - num('holdTurns')))
  append('turn', 'n', m.turn)
end
