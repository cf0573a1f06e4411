-- Puts a session on its tenant's list.
local id, expires, era, tenant = ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
if expires + LEEWAY_MS <= now or redis.call('ZSCORE', SET, id) then return {'ok'} end
redis.call('HSETNX', META, 'era', era)
local n = redis.call('HINCRBY', META, 'last', 1)
redis.call('XADD', STREAM, n .. '-0', 'id', id, 'expires', ARGV[3])
redis.call('ZADD', SET, ARGV[3], id)
redis.call('PUBLISH', HINTS, tenant)
return {'ok'}
