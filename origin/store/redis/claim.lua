-- Turns an offer into a session.
local refusal = open('window', 'claimed')
if refusal then return refusal end
local sessions, sessionIDs, fates, missed, users, named = key(), key(), key(), key(), key(), key()
local position, subject, id = number(), text(), text()
if position < 1 or position > num('issued') then return {'NOTISSUED'} end
local page, offset = place(position)
local fatesOf = {[page] = fates}
for _ = 1, number() do fatesOf[number()] = key() end

-- refused is what keeps the subject from a session here: the map of users has it at another place, which
-- it has not lost, or has somebody else at this one.
local function refused()
  local own = tonumber(redis.call('HGET', users, subject) or nil)
  if own == position then return end
  if redis.call('GETBIT', named, offset) == 1 then return {'TAKEN'} end
  if not own or own > num('issued') then return end
  local ownPage, ownOffset = place(own)
  if not fatesOf[ownPage] then return again(int(ownPage)) end
  local fate = fateOf(fatesOf[ownPage], ownOffset)
  if fate == FATE_WAITING or (fate == FATE_CLAIMED and running(sessions, own)) then return {'TAKEN'} end
end

if fateOf(fates, offset) ~= FATE_WAITING then
  local session = running(sessions, position)
  if not session then return {'OUT'} end
  if session.subject == NOBODY then
    -- Put back after a loss: it is the first one's to claim it.
    refusal = refused()
    if refusal then return refusal end
    redis.call('HSET', sessions, position, packSession(subject, session.starts, session.expires, session.id))
  elseif session.subject ~= subject then
    return {'TAKEN'}
  end
  return done(session.id, session.starts, session.expires)
end
if m.state == 'closed' then return {'OUT'} end
local claimBy = tonumber(redis.call('ZSCORE', OFFERS, position) or nil)
if not claimBy or now >= claimBy + GRACE_MS then return {'NOTOFFERED'} end
refusal = refused()
if refusal then return refusal end
if redis.call('HEXISTS', sessionIDs, id) == 1 then return {'SESSIONID'} end

-- Whole seconds, like queue.Settings.SessionEnd.
local expires = math.ceil((now + num('window')) / 1000) * 1000
redis.call('ZREM', OFFERS, position)
redis.call('HDEL', missed, position)
redis.call('ZADD', EXPIRIES, int(expires), position)
redis.call('HSET', sessions, position, packSession(subject, now, expires, id))
redis.call('HSET', sessionIDs, id, position)
setFates(fates, {offset}, FATE_CLAIMED)
add('claimed', 1)
append('claimed', 'p', position, 's', id, 'a', int(now), 'u', int(expires))
return done(id, now, expires)
