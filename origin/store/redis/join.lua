-- Gives positions to a batch of joins. Anonymous fans cost nothing each: their bits are set as
-- runs of bytes.
local refusal = open('capacity', 'claim', 'joinSlots', 'waiting', 'watermark', 'admitted', 'turnedAway',
  'generations', 'hasUsers', 'identity')
if refusal then return refusal end
local sessions, joiners, batches = key(), key(), key()
local edge, seq, floor, floorOf = text(), text(), number(), text()
local count, users, turn = number(), text(), text()

-- A batch that was answered before gets the same answer.
local memory = redis.call('HMGET', batches, 'last', seq)
local last = tonumber(memory[1] or 0)
if last - tonumber(seq) >= BATCHES_KEPT then return {'BATCHEXPIRED'} end
if memory[2] then
  local at, answer = string.match(memory[2], '^(%d+) (.*)$')
  if now - tonumber(at) < BATCHES_KEPT_MS then return done(answer, m.incarnation) end
  return {'BATCHEXPIRED'}
end
if m.state == 'closed' then return {'CLOSED'} end
if turn ~= m.turn then return again() end

local pages, buckets = {}, {}
for _ = 1, number() do
  pages[number()] = {waiting = key(), seen = key(), fates = key(), lapsed = key(), named = key()}
end
for _ = 1, number() do buckets[number()] = key() end

-- Who is new, and who has a position already? known[i] is what the i-th join has; for one that
-- came earlier in this batch, index is its count among the new.
local ANONYMOUS = string.rep('\0', 16)
local known, firstOf, newcomers, need = {}, {}, {}, {}
local fresh = 0
local untilFirstWaiter -- how many new ones come before the first who waits already
for i = 1, count do
  local user = users ~= '' and string.sub(users, i * 16 - 15, i * 16) or ANONYMOUS
  local has
  if user == ANONYMOUS and m.identity == 'required' then return {'ANONYMOUS'} end
  if user ~= ANONYMOUS then
    if firstOf[user] then
      has = firstOf[user]
    else
      local bucket = buckets[string.byte(user, 1) * 16 + math.floor(string.byte(user, 2) / 16)]
      local position = tonumber(redis.call('HGET', bucket, user))
      if position and position <= num('issued') then
        local page, offset = place(position)
        if not pages[page] then
          need[page] = true
        else
          local fate = fateOf(pages[page].fates, offset)
          if fate == FATE_WAITING then
            local claimBy = redis.call('ZSCORE', OFFERS, position)
            has = {position = position, claimBy = tonumber(claimBy or 0)}
            if not claimBy and not untilFirstWaiter then untilFirstWaiter = fresh end
          elseif fate == FATE_CLAIMED then
            local session = running(sessions, position)
            if session then has = {position = position, claimBy = 0, session = session} end
          end
        end
      end
      if not has then
        firstOf[user] = {index = fresh + 1}
        newcomers[#newcomers + 1] = {bucket = bucket, user = user, index = fresh + 1}
      else
        firstOf[user] = has
      end
    end
  end
  if has then known[#known + 1] = {i, has} else fresh = fresh + 1 end
end
if next(need) then
  local list = {}
  for page in pairs(need) do list[#list + 1] = page end
  return again(table.concat(list, ','))
end

local issued = num('issued')
local first = issued + 1
if floorOf == m.incarnation and floor > issued and floor - issued <= MAX_FLOOR_RISE then first = floor + 1 end
local highest = first + fresh - 1
if fresh > 0 then
  for page = place(issued + 1), (place(highest)) do
    if not pages[page] then return again() end
  end
end

-- From here on everything is written.
local offered, claimBy = 0, now + num('claim')
if m.state == 'open' and num('joinSlots') > 0 then
  offered = math.min(num('joinSlots'), free(), untilFirstWaiter or fresh)
end
if offered < fresh or untilFirstWaiter then
  add('turnedAway', 1)
  if num('joinSlots') > 0 then set('joinSlots', 0) end
else
  add('joinSlots', -offered)
end

if fresh > 0 then
  local live, grown = livePages(), false
  for page = place(issued + 1), (place(highest)) do
    local at = page * PAGE + 1 -- the page's first position
    local p = pages[page]
    local function mark(bitmap, from, to)
      from, to = math.max(from, at), math.min(to, at + PAGE - 1)
      if from <= to then fill(bitmap, from - at, to - at) end
    end
    ensure(p.waiting, PAGE_BYTES)
    ensure(p.seen, PAGE_BYTES)
    mark(p.seen, issued + 1, highest)
    mark(p.waiting, issued + 1, first - 1)
    mark(p.waiting, first + offered, highest)
    if not live[page] then live[page], grown = true, true end
  end
  if grown then setLive(live) end
  local named = {}
  for i, newcomer in ipairs(newcomers) do
    named[i] = first + newcomer.index - 1
    redis.call('HSET', newcomer.bucket, newcomer.user, int(named[i]))
  end
  for page, offsets in pairs(byPage(named)) do
    ensure(pages[page].named, PAGE_BYTES)
    write(pages[page].named, 'u1', offsets, 1)
  end
  if #newcomers > 0 and m.hasUsers ~= '1' then set('hasUsers', 1) end
  set('issued', highest)
  add('waiting', highest - issued - offered)
  append('joined', 'i', m.issued)
end
if offered > 0 then
  local members = {}
  for position = first, first + offered - 1 do
    members[#members + 1] = claimBy
    members[#members + 1] = int(position)
  end
  each('ZADD', OFFERS, members)
  add('admitted', offered)
  set('watermark', math.max(num('watermark'), first + offered - 1))
  append('offered', 'p', fold({first}) .. (offered > 1 and '-' .. int(first + offered - 1) or ''),
    'u', int(claimBy), 'w', m.watermark, 'i', m.issued)
end

-- Whoever had a position is seen by joining; those without a session are in live pages.
local list = {}
for i, entry in ipairs(known) do
  local has = entry[2]
  local session = has.session
  if has.index then
    has = {position = first + has.index - 1, claimBy = has.index <= offered and claimBy or 0}
  elseif not session then
    local page, offset = place(has.position)
    ensure(pages[page].seen, PAGE_BYTES)
    redis.call('SETBIT', pages[page].seen, offset, 1)
    if redis.call('EXISTS', pages[page].lapsed) == 1 then
      redis.call('SETBIT', pages[page].lapsed, offset, 0)
    end
  end
  list[i] = {entry[1], has.position, has.claimBy}
  if session then list[i] = {entry[1], has.position, 0, session.id, session.starts, session.expires} end
end

local answer = table.concat({string.match(m.generations, '[^,]*$'), int(first), int(fresh), int(offered),
  int(claimBy), #list > 0 and cjson.encode(list) or '[]'}, ' ')
redis.call('HSET', batches, seq, int(now) .. ' ' .. answer, 'last', int(math.max(last, tonumber(seq))))
redis.call('HDEL', batches, int(tonumber(seq) - BATCHES_KEPT))
redis.call('PEXPIRE', batches, BATCHES_TTL_MS)
redis.call('ZADD', joiners, now, edge)
redis.call('ZREMRANGEBYSCORE', joiners, '-inf', now - JOINERS_KEPT_MS)
return done(answer, m.incarnation)
