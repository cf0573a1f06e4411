-- Begins a new generation of a queue whose latest entries were lost, unless another origin has done
-- so already, and puts back what the caller remembers of them. Every live page is named, those up to
-- the highest number that can be issued, and those of the positions put back.
local refusal = open('generations', 'created', 'version', 'settings', 'rules', 'waiting', 'watermark', 'claimed', 'ended',
  'expired', 'missed', 'left')
if refusal then return refusal end
local sessions, sessionIDs = key(), key()
local named, seen, generations, generation = text(), text(), text(), text()
local entry, chain = number(), text()
local issuedFloor, watermarkFloor, version, keepsOffers = number(), number(), number(), text() == '1'
local function answer() return done(m.incarnation, m.generations, m.created, m.version, m.settings) end

-- Was anything lost? Not if the entry that the caller has is there. A generation that is listed and
-- over was renewed by another.
local running, listed = string.match(m.generations, '[^,]*$'), false
for name in string.gmatch(m.generations, '[^,]+') do listed = listed or name == seen end
if seen == running then
  local item = redis.call('XRANGE', LOG, int(entry) .. '-0', int(entry) .. '-0')[1]
  if not item and num('number') >= entry then return answer() end -- trimmed: nothing can be said
  for i = 1, item and #item[2] or 0, 2 do
    if item[2][i] == 'c' and item[2][i + 1] == chain then return answer() end
  end
end
local first = seen == running or not listed
if named ~= kept() then return again() end

local pages = {}
for _ = 1, number() do
  pages[number()] = {waiting = key(), fates = key(), lapsed = key(), missed = key()}
end
local highest = math.max(num('issued'), issuedFloor + (first and RENEWAL_MARGIN or 0))
for page = place(num('issued') + 1), (place(math.max(highest, 1))) do
  if not pages[page] and highest > num('issued') then return again() end
end

-- From here on everything is written.
local changed = first
if first then
  for name in string.gmatch(generations, '[^,]+') do
    if not string.find(',' .. m.generations .. ',', ',' .. name .. ',', 1, true) then
      m.generations = m.generations .. ',' .. name
    end
  end
  set('generations', m.generations .. ',' .. generation)
  set('number', math.max(num('number'), entry)) -- no number of an entry comes twice
  set('joinSlots', 0)
  set('fresh', m.turn)
  set('owner', '')
  set('leaseUntil', 0)
  set('idle', 0)
end

-- Who holds a number that is passed over is not known to be there before the next sighting; offers
-- must not go to numbers that nobody holds.
if highest > num('issued') then
  local issued, live = num('issued'), livePages()
  for page = place(issued + 1), (place(highest)) do
    local at, p = page * PAGE + 1, pages[page]
    local from, to = math.max(issued + 1, at) - at, math.min(highest, at + PAGE - 1) - at
    ensure(p.waiting, PAGE_BYTES)
    fill(p.waiting, from, to)
    live[page] = true
  end
  setLive(live)
  add('waiting', highest - issued)
  set('issued', highest)
  changed = true
end
if watermarkFloor > num('watermark') then
  set('watermark', watermarkFloor)
  changed = true
end

-- out takes a position that has waited, with an offer or without, out of the line; nil when there is
-- nothing to be put back.
local function out(position)
  local page, offset = place(position)
  local p = pages[page]
  if not p or fateOf(p.fates, offset) ~= FATE_WAITING then return end
  if redis.call('ZREM', OFFERS, position) == 0 then
    redis.call('SETBIT', p.waiting, offset, 0)
    if redis.call('EXISTS', p.lapsed) == 1 then redis.call('SETBIT', p.lapsed, offset, 0) end
    add('waiting', -1)
  end
  redis.call('HDEL', p.missed, position)
  changed = true
  return p, offset
end

for _, fate in ipairs({FATE_ENDED, FATE_EXPIRED, FATE_MISSED, FATE_LEFT}) do
  local lists, count = {}, 0
  for _, position in ipairs(parse(text())) do
    local p, offset = out(position)
    if p then
      lists[p] = lists[p] or {}
      table.insert(lists[p], offset)
      count = count + 1
    end
  end
  for p, offsets in pairs(lists) do setFates(p.fates, offsets, fate) end
  add(({[FATE_ENDED] = 'ended', [FATE_EXPIRED] = 'expired', [FATE_MISSED] = 'missed', [FATE_LEFT] = 'left'})[fate], count)
end

-- Sessions come back without their subject, which nobody but the store knew.
for _ = 1, number() do
  local position, id, starts, expires = number(), text(), number(), number()
  if redis.call('HEXISTS', sessionIDs, id) == 0 then
    local p, offset = out(position)
    if p then
      redis.call('ZADD', EXPIRIES, int(expires), position)
      redis.call('HSET', sessions, position, packSession(NOBODY, starts, expires, id))
      redis.call('HSET', sessionIDs, id, position)
      setFates(p.fates, {offset}, FATE_CLAIMED)
      add('claimed', 1)
    end
  end
end

for _ = 1, number() do
  local position, claimBy = number(), number()
  local page, offset = place(position)
  local p = pages[page]
  if first and p and fateOf(p.fates, offset) == FATE_WAITING and not redis.call('ZSCORE', OFFERS, position) then
    redis.call('SETBIT', p.waiting, offset, 0)
    if redis.call('EXISTS', p.lapsed) == 1 then redis.call('SETBIT', p.lapsed, offset, 0) end
    redis.call('ZADD', OFFERS, int(claimBy), position)
    add('waiting', -1)
  end
end

if version > num('version') then
  local wasRules = m.rules
  takeSettings()
  set('version', version)
  set('joinSlots', 0)
  if m.rules ~= wasRules then set('estimate', '') end
  set('fresh', m.turn)
  changed = true
  if not keepsOffers then
    for page, offsets in pairs(byPage(parse(table.concat(redis.call('ZRANGE', OFFERS, 0, -1), ',')))) do
      ensure(pages[page].waiting, PAGE_BYTES)
      write(pages[page].waiting, 'u1', offsets, 1)
      add('waiting', #offsets)
    end
    redis.call('DEL', OFFERS)
  end
end
if changed then append('generation') end
return answer()
