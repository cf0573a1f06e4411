-- Makes a queue due at a time, if it is not due earlier. An earlier reminder is written anew, so that
-- the replicas that have this have that one too.
local at, earlier = tonumber(ARGV[2]), redis.call('ZSCORE', KEYS[1], ARGV[1])
if earlier then at = math.min(at, tonumber(earlier)) end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], string.format('%.0f', at), ARGV[1])
return {'ok'}
