-- Notes that a queue is about to be deleted, so that it is told from one that was lost.
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return {'ok'}
