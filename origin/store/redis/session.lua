-- Finds a running session, by its id or by its position.
local refusal = open()
if refusal then return refusal end
local sessions, sessionIDs = key(), key()
local id, position = text(), text()
if id ~= '' then position = redis.call('HGET', sessionIDs, id) end
local packed = position and redis.call('HGET', sessions, position)
if not packed then return {'NOSESSION'} end
local _, starts, expires, name = unpackSession(packed)
return {'ok', num('number'), 0, shape(), tonumber(position), name, starts, expires}
