-- The list of a tenant's revocations: a stream, the set of those on it with their expiry, and
-- counters. This reads the list after a number, and first drops from its beginning what verifiers
-- need no more.
local STREAM, SET, META = KEYS[1], KEYS[2], KEYS[3]
local now = tonumber(ARGV[1])

local function trim()
  while true do
    local head = redis.call('XRANGE', STREAM, '-', '+', 'COUNT', 100)
    local over = 0
    for _, item in ipairs(head) do
      if tonumber(item[2][4]) + LEEWAY_MS > now then break end
      over = over + 1
      redis.call('ZREM', SET, item[2][2])
      redis.call('XDEL', STREAM, item[1])
      redis.call('HSET', META, 'trimmed', string.match(item[1], '^%d+'))
    end
    if over == 0 or over < #head then return end
  end
end
trim()
