-- Records sightings of a kept turn, for live pages: few of a page as offsets, many as a bitmap.
local refusal = open()
if refusal then return refusal end
local edges, scratch = key(), key()
local named, highest, running, edge, report = text(), number(), text() == '1', text(), text()
local asOf, at = number(), math.min(number(), now)
if named ~= kept() or highest > num('issued') then return again() end

-- unlapse makes those of the offsets candidates again that were seen later than their lapse.
local function unlapse(page, lapsed, missed, offsets)
  local again = {}
  for _, offset in ipairs(offsets) do
    local lapse = redis.call('HGET', missed, LAPSE .. int(page * PAGE + offset + 1))
    if tonumber(lapse or 0) <= asOf then again[#again + 1] = offset end
  end
  if #again > 0 then write(lapsed, 'u1', again, 0) end
end

-- which lists those of the offsets whose bits are set.
local function which(bitmap, offsets)
  local set = {}
  for i, bit in ipairs(bits(bitmap, offsets)) do
    if bit == 1 then set[#set + 1] = offsets[i] end
  end
  return set
end

-- all lists the offsets whose bits are set, and clears them.
local function all(bitmap)
  local set = {}
  while true do
    local offset = redis.call('BITPOS', bitmap, 1)
    if offset < 0 then return set end
    redis.call('SETBIT', bitmap, offset, 0)
    set[#set + 1] = offset
  end
end

for _ = 1, number() do
  local seen, lapsed, missed = key(), key(), key()
  local page, first, data = number(), number(), text()
  ensure(seen, PAGE_BYTES)
  local clear = running and redis.call('EXISTS', lapsed) == 1
  if first < 0 then
    local offsets = parse(data)
    write(seen, 'u1', offsets, 1)
    if clear then unlapse(page, lapsed, missed, which(lapsed, offsets)) end
  else
    redis.call('SETRANGE', scratch, first, data)
    redis.call('BITOP', 'OR', seen, seen, scratch)
    if clear then
      redis.call('BITOP', 'AND', scratch, scratch, lapsed)
      unlapse(page, lapsed, missed, all(scratch))
    end
    redis.call('DEL', scratch)
  end
end
if report ~= '' and at >= tonumber(redis.call('HGET', edges, edge) or at) then
  if report == 'leaving' then
    redis.call('HDEL', edges, edge)
  else
    redis.call('HSET', edges, edge, int(at))
  end
end
return done()
