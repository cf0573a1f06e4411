-- Reads what a tick needs. Who is present is computed page by page into a scratch key, which
-- replicas need not know about.
local refusal = open('epoch', 'settings', 'capacity', 'waiting', 'joinSlots', 'turnedAway', 'admitted', 'lastTick',
  'turnStarted', 'version')
if refusal then return refusal end
local edges, scratch, inverse = key(), key(), key()
local limit, named = number(), text()
if named ~= kept() then return again() end

local dueSessions = redis.call('ZRANGEBYSCORE', EXPIRIES, '-inf', now)
local dueOffers = redis.call('ZRANGEBYSCORE', OFFERS, '-inf', now - GRACE_MS)
local sessions, offers = redis.call('ZCARD', EXPIRIES), redis.call('ZCARD', OFFERS)
local need = 0
if m.state == 'open' then
  need = math.min(limit, num('capacity') - (sessions - #dueSessions) - (offers - #dueOffers))
end

local present, wanted, pieces = 0, math.max(need, 0), {}
redis.set_repl(redis.REPL_NONE)
for page in string.gmatch(m.live, '%d+') do
  local waiting, lapsed, seen, before = key(), key(), key(), key()
  redis.call('BITOP', 'OR', scratch, seen, before)
  redis.call('BITOP', 'AND', scratch, scratch, waiting)
  local count = redis.call('BITCOUNT', scratch)
  present = present + count
  if count > 0 and wanted > 0 then
    if redis.call('EXISTS', lapsed) == 1 then
      redis.call('BITOP', 'NOT', inverse, lapsed)
      redis.call('BITOP', 'AND', scratch, scratch, inverse)
    end
    -- The lowest bits come in pieces, from the next bit that is set; the caller unpacks them.
    local size, byte = math.min(wanted, count) > 64 and 1024 or 32, 0
    while wanted > 0 and byte < PAGE_BYTES do
      local bit = redis.call('BITPOS', scratch, 1, byte)
      if bit < 0 then break end
      byte = math.floor(bit / 8)
      pieces[#pieces + 1] = int(page * PAGE + byte * 8)
      pieces[#pieces + 1] = redis.call('GETRANGE', scratch, byte, byte + size - 1)
      wanted = wanted - redis.call('BITCOUNT', scratch, byte, byte + size - 1)
      byte = byte + size
    end
  end
end
redis.call('DEL', scratch, inverse)
redis.set_repl(redis.REPL_ALL)

return done(m.epoch or '0', m.settings, sessions, offers, num('waiting'), present, dueSessions, dueOffers,
  math.max(need, 0), pieces, num('joinSlots'), num('turnedAway'), num('admitted'), int(now), num('lastTick'), num('turn'), num('turnStarted'),
  redis.call('HGETALL', edges), redis.call('ZRANGE', EXPIRIES, 0, 0, 'WITHSCORES'),
  m.incarnation, num('version'))
