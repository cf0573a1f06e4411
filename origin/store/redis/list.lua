-- Lists a queue in its tenant's registry. It is written anew even where it stands there, so that the
-- replicas that have this have an earlier execution too.
redis.call('SREM', KEYS[1], ARGV[1])
redis.call('SADD', KEYS[1], ARGV[1])
return {'ok'}
