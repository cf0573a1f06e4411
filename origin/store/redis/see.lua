-- Records sightings of a kept turn, for live pages: few of a page as offsets, many as a bitmap.
local refusal = open()
if refusal then return refusal end
local edges, scratch = key(), key()
local named, highest, running, edge, report = text(), number(), text() == '1', text(), text()
if named ~= kept() or highest > num('issued') then return again() end

for _ = 1, number() do
  local seen, lapsed = key(), key()
  local at, data = number(), text()
  ensure(seen, PAGE_BYTES)
  local clear = running and redis.call('EXISTS', lapsed) == 1
  if at < 0 then
    local offsets = parse(data)
    write(seen, 'u1', offsets, 1)
    if clear then write(lapsed, 'u1', offsets, 0) end
  else
    redis.call('SETRANGE', scratch, at, data)
    redis.call('BITOP', 'OR', seen, seen, scratch)
    if clear then
      ensure(scratch, PAGE_BYTES)
      redis.call('BITOP', 'NOT', scratch, scratch)
      redis.call('BITOP', 'AND', lapsed, lapsed, scratch)
    end
    redis.call('DEL', scratch)
  end
end
if report == 'leaving' then
  redis.call('HDEL', edges, edge)
elseif report == 'complete' then
  redis.call('HSET', edges, edge, int(now))
end
return done()
