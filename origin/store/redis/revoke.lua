-- Puts a session on its tenant's list. A repetition writes something too, so that the replicas that
-- have it have the first execution.
local id, expires, era, tenant = ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
redis.call('HSETNX', META, 'era', era)
if expires + LEEWAY_MS <= now or redis.call('ZSCORE', SET, id) then
  redis.call('HSET', META, 'last', redis.call('HGET', META, 'last') or 0)
  return {'ok'}
end
local n = redis.call('HINCRBY', META, 'last', 1)
redis.call('XADD', STREAM, n .. '-0', 'id', id, 'expires', ARGV[3])
redis.call('ZADD', SET, ARGV[3], id)
redis.call('PUBLISH', HINTS, tenant)
return {'ok'}
