-- Closes a turn: whoever waits and was not seen in any kept turn is expired, pages in which
-- nobody waits any more are dropped, and the next turn begins. The cost is that of the live pages,
-- however many expire.
local refusal = open('epoch', 'fresh', 'holdRuns', 'waiting', 'expired', 'turnStarted', 'turnLength')
if refusal then return refusal end
local FEW = 1000
local edges, scratch, absent = key(), key(), key()
local epoch, turn, named = text(), number(), text()
if m.epoch ~= epoch or m.owner == '' then return {'LEASELOST'} end
if num('turn') ~= turn then return done(0) end
if named ~= kept() then return again() end

-- expand makes fates of 4 bits out of bits, so that they can be written by the page.
local unit
local function expand(bitmap, fate)
  if not unit then
    unit = {}
    for byte = 0, 255 do
      local out = {}
      for pair = 0, 3 do
        local high = math.floor(byte / 2 ^ (7 - 2 * pair)) % 2
        local low = math.floor(byte / 2 ^ (6 - 2 * pair)) % 2
        out[pair + 1] = string.char((high * 16 + low) * fate)
      end
      unit[string.char(byte)] = table.concat(out)
    end
  end
  return (string.gsub(bitmap, '.', unit))
end

-- offsetsOf lists the bits that are set; it is for bitmaps with few of them.
local function offsetsOf(bitmap)
  local offsets = {}
  local at = string.find(bitmap, '[^%z]')
  while at do
    local byte = string.byte(bitmap, at)
    for bit = 7, 0, -1 do
      if byte >= 2 ^ bit then
        byte = byte - 2 ^ bit
        offsets[#offsets + 1] = at * 8 - 1 - bit
      end
    end
    at = string.find(bitmap, '[^%z]', at + 1)
  end
  return offsets
end

-- trimmed writes a page's bitmap for the log, from its first to its last byte that is not zero:
-- position of the first bit, number of bytes, bytes.
local function trimmed(page, bitmap)
  local from, to = string.find(bitmap, '[^%z]'), #bitmap
  while string.byte(bitmap, to) == 0 do to = to - 1 end
  return int(page * PAGE + (from - 1) * 8 + 1) .. ':' .. (to - from + 1) .. ':' .. string.sub(bitmap, from, to)
end

local oldest, least = num('oldest'), turn - num('holdTurns')
local ends = num('fresh') < least and m.holdRuns == '1'
local pages, dropped, expired = {}, {}, 0
for name in string.gmatch(m.live, '%d+') do
  local page = {number = tonumber(name), waiting = key(), fates = key(), others = {key(), key()}, seen = {}}
  pages[#pages + 1] = page
  local sighted = {}
  for t = oldest, turn do
    local seen = key()
    page.seen[#page.seen + 1] = seen
    if t >= least then sighted[#sighted + 1] = seen end
    if t < turn + 1 - num('holdTurns') then dropped[#dropped + 1] = seen end
  end
  if ends then
    redis.call('BITOP', 'OR', scratch, unpack(sighted))
    ensure(scratch, PAGE_BYTES)
    redis.call('BITOP', 'NOT', absent, scratch)
    redis.call('BITOP', 'AND', absent, absent, page.waiting)
    local count = redis.call('BITCOUNT', absent)
    if count > 0 then
      redis.call('BITOP', 'AND', page.waiting, page.waiting, scratch)
      page.absent = redis.call('GET', absent)
      expired = expired + count
    end
  end
end

-- In the log, few positions stand as a list and many as bitmaps.
if expired > 0 then
  local positions, bitmaps = {}, {}
  for _, page in ipairs(pages) do
    if page.absent and expired <= FEW then
      local offsets = offsetsOf(page.absent)
      setFates(page.fates, offsets, FATE_EXPIRED)
      for _, offset in ipairs(offsets) do positions[#positions + 1] = page.number * PAGE + offset + 1 end
    elseif page.absent then
      redis.call('SET', scratch, expand(page.absent, FATE_EXPIRED))
      redis.call('BITOP', 'OR', page.fates, page.fates, scratch)
      bitmaps[#bitmaps + 1] = trimmed(page.number, page.absent)
    end
  end
  local field, list = 'p', fold(positions)
  if #bitmaps > 0 then field, list = 'b', table.concat(bitmaps) end
  append('done', field, list, 'f', FATE_EXPIRED, 'r', REASON_ABSENT)
  add('waiting', -expired)
  add('expired', expired)
end
redis.call('DEL', scratch, absent)

local live, offered = livePages(), nil
for _, page in ipairs(pages) do
  if redis.call('BITCOUNT', page.waiting) == 0 then
    if not offered then
      offered = {}
      for _, position in ipairs(redis.call('ZRANGE', OFFERS, 0, -1)) do
        offered[place(tonumber(position))] = true
      end
    end
    if not offered[page.number] then
      unlink({page.waiting, unpack(page.others)})
      unlink(page.seen)
      live[page.number] = nil
      setLive(live)
    end
  end
end

local reports = redis.call('HGETALL', edges)
for i = 1, #reports, 2 do
  if now - tonumber(reports[i + 1]) >= VANISHED_MS then redis.call('HDEL', edges, reports[i]) end
end
-- The next turn begins as queue.NextTurn says: when this one was due to end, unless that was long ago.
local started = num('turnStarted') + num('turnLength')
if started > now or now - started > PROMPT_MS then started = now end
beginTurn(started, dropped)
return done(expired)
