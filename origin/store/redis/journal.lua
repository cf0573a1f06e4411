-- Appends a page to a queue's journal, if the journal stands where the page begins.
local META, JOURNAL, MINUTES, MOVES = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local incarnation, fromEntry, fromChain, entry, chain, state = unpack(ARGV, 1, 6)
if redis.call('HGET', META, 'incarnation') ~= incarnation then return {'NOTFOUND'} end
local at = redis.call('HMGET', JOURNAL, 'entry', 'chain')
local atEntry, atChain = at[1] or '0', at[2] or ''
if atEntry == entry and atChain == chain then return {'ok'} end -- repeated
if atEntry ~= fromEntry or atChain ~= fromChain then return {'CONFLICT'} end

local taken = 6
local function append(stream, keep)
  taken = taken + 1
  for _ = 1, tonumber(ARGV[taken]) do
    redis.call('XADD', stream, 'MAXLEN', '~', keep, ARGV[taken + 1] .. '-0', 'j', ARGV[taken + 2])
    taken = taken + 2
  end
end
append(MINUTES, MINUTES_KEPT)
append(MOVES, MOVES_KEPT)
redis.call('HSET', JOURNAL, 'entry', entry, 'chain', chain, 'state', state)
return {'ok'}
