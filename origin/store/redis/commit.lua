-- Applies a tick under its epoch, and counts again.
local refusal = open('epoch', 'idle', 'ticked', 'capacity', 'claim', 'maxMissed', 'waiting', 'watermark',
  'joinSlots', 'turnedAway', 'answer', 'admitted', 'missedOffers', 'ended', 'missed')
if refusal then return refusal end
local sessions, sessionIDs = key(), key()
local owner, ttl, epoch, prolong, joinSlots, turnedAway, present =
  text(), number(), text(), number(), number(), number(), number()
local endSessions, lapse, offer, estimate = text(), text(), text(), text()
local pages = {}
for _ = 1, number() do
  pages[number()] = {fates = key(), waiting = key(), lapsed = key(), missed = key()}
end

local function setFate(positions, fate)
  for page, offsets in pairs(byPage(positions)) do setFates(pages[page].fates, offsets, fate) end
end

-- finish logs positions that came to their last fate.
local function finish(positions, fate, reason)
  if #positions == 0 then return end
  setFate(positions, fate)
  append('done', 'p', fold(positions), 'f', fate, 'r', reason)
end

local ended, lapsed, missed, offered = {}, {}, {}, {}

-- An interruption is given back to every running offer, and to the running turn.
local function prolongAll()
  if prolong <= 0 then return end
  set('turnStarted', now)
  local running = redis.call('ZRANGE', OFFERS, 0, -1, 'WITHSCORES')
  if #running == 0 then return end
  local members = {}
  for i = 1, #running, 2 do
    members[i], members[i + 1] = int(tonumber(running[i + 1]) + prolong), running[i]
  end
  each('ZADD', OFFERS, members)
  append('prolonged', 'a', int(now - prolong), 'u', int(now))
end

local function endAll(positions)
  local ids = {}
  for from = 1, #positions, 500 do
    local some = {unpack(positions, from, math.min(from + 499, #positions))}
    for i, packed in ipairs(redis.call('HMGET', sessions, unpack(some))) do
      if packed then
        local _, _, expires, id = unpackSession(packed)
        if expires <= now then
          ended[#ended + 1] = some[i]
          ids[#ids + 1] = id
        end
      end
    end
  end
  each('ZREM', EXPIRIES, ended)
  each('HDEL', sessions, ended)
  each('HDEL', sessionIDs, ids)
  add('ended', #ended)
  finish(ended, FATE_ENDED, REASON_WINDOW)
end

local function lapseAll(positions)
  local gone = {}
  for _, position in ipairs(positions) do
    local claimBy = tonumber(redis.call('ZSCORE', OFFERS, position) or nil)
    if claimBy and now >= claimBy + GRACE_MS then
      gone[#gone + 1] = position
      local page = pages[place(position)]
      if redis.call('HINCRBY', page.missed, position, 1) >= num('maxMissed') then
        redis.call('HDEL', page.missed, position)
        missed[#missed + 1] = position
      else
        lapsed[#lapsed + 1] = position
      end
    end
  end
  each('ZREM', OFFERS, gone)
  add('missedOffers', #gone)
  if #lapsed > 0 then
    for page, offsets in pairs(byPage(lapsed)) do
      ensure(pages[page].waiting, PAGE_BYTES)
      ensure(pages[page].lapsed, PAGE_BYTES)
      write(pages[page].waiting, 'u1', offsets, 1)
      write(pages[page].lapsed, 'u1', offsets, 1)
    end
    add('waiting', #lapsed)
    append('lapsed', 'p', fold(lapsed))
    for _, position in ipairs(lapsed) do
      redis.call('HSET', pages[place(position)].missed, LAPSE .. position, m.number)
    end
  end
  add('missed', #missed)
  finish(missed, FATE_MISSED, REASON_MISSED)
end

local function offerAll(positions)
  local slots = m.state == 'open' and free() or 0
  if slots == 0 or #positions == 0 then return end
  local lists = byPage(positions)
  local waits = {}
  for page, offsets in pairs(lists) do
    for i, bit in ipairs(bits(pages[page].waiting, offsets)) do
      waits[page * PAGE + offsets[i] + 1] = bit == 1
    end
  end
  local claimBy, members = int(now + num('claim')), {}
  for _, position in ipairs(positions) do
    if #offered < slots and waits[position] then
      offered[#offered + 1] = position
      members[#members + 1] = claimBy
      members[#members + 1] = int(position)
    end
  end
  if #offered == 0 then return end
  for page, offsets in pairs(byPage(offered)) do
    write(pages[page].waiting, 'u1', offsets, 0)
    if redis.call('EXISTS', pages[page].lapsed) == 1 then write(pages[page].lapsed, 'u1', offsets, 0) end
  end
  each('ZADD', OFFERS, members)
  add('waiting', -#offered)
  add('admitted', #offered)
  set('watermark', math.max(num('watermark'), offered[#offered]))
  append('offered', 'p', fold(offered), 'u', claimBy, 'w', m.watermark, 'i', m.issued or 0)
end

-- A tick that is not later than the last one under this epoch was applied already, and gets that
-- one's answer.
local repeated = given <= num('ticked')
local idle = 0
if m.epoch ~= epoch or epoch == '0' then return {'LEASELOST'} end
if repeated and m.owner == '' and m.idle == '1' then
  idle = 1
elseif m.owner ~= owner then
  return {'LEASELOST'}
else
  set('leaseUntil', now + ttl)
  if not repeated then
    set('ticked', given)
    set('lastTick', now)
    set('present', present)
    prolongAll()
    endAll(parse(endSessions))
    lapseAll(parse(lapse))
    offerAll(parse(offer))
    if estimate ~= '' then
      set('estimate', estimate)
      append('estimate', 'e', estimate)
    end
    local answer = table.concat({fold(offered), fold(lapsed), fold(missed), fold(ended)}, ' ')
    if answer ~= m.answer then set('answer', answer) end
    if m.state ~= 'open' or turnedAway ~= num('turnedAway') then joinSlots = 0 end
    set('joinSlots', math.max(math.min(joinSlots, free()), 0))
    if asleep() or m.state == 'closed'
        or (num('waiting') == 0 and redis.call('ZCARD', OFFERS) == 0) then
      set('owner', '')
      set('leaseUntil', 0)
      set('idle', 1)
      idle = 1
    end
  end
end
return done(idle, m.answer, redis.call('ZCARD', EXPIRIES), redis.call('ZCARD', OFFERS))
