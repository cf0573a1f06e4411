-- Ends a running session early. The caller has looked its position up; sessions do not move.
local refusal = open('ended', 'left')
if refusal then return refusal end
local sessions, sessionIDs, fates = key(), key(), key()
local position, id, fate, reason = number(), text(), number(), text()
local session = running(sessions, position)
if not session or session.id ~= id then return done() end
redis.call('ZREM', EXPIRIES, position)
redis.call('HDEL', sessions, position)
redis.call('HDEL', sessionIDs, id)
local _, offset = place(position)
setFates(fates, {offset}, fate)
add(fate == FATE_LEFT and 'left' or 'ended', 1)
append('done', 'p', position, 'f', fate, 'r', reason)
return done()
