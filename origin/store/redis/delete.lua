-- Removes all keys of a closed queue, which the caller names after the standing ones.
local refusal = open()
if refusal then return refusal end
local named, edges, joiners = text(), number(), key()
if m.state ~= 'closed' then return {'NOTCLOSED'} end
if redis.call('ZCARD', EXPIRIES) > 0 then return {'RUNNING'} end
if named ~= shape() or edges ~= redis.call('ZCARD', joiners) then return again() end
unlink(KEYS)
redis.call('PUBLISH', HINTS, QUEUE)
return {'ok', 0, 0, named}
