-- Takes a waiting or offered position out of the line.
local refusal = open('waiting', 'left')
if refusal then return refusal end
local sessions, fates, missed, waiting, lapsed = key(), key(), key(), key(), key()
local position = number()
if position < 1 or position > num('issued') then return {'NOTISSUED'} end
local _, offset = place(position)
if fateOf(fates, offset) ~= FATE_WAITING then
  if running(sessions, position) then return {'RUNNING'} end
  return done()
end
local declined = redis.call('ZREM', OFFERS, position) == 1
if not declined then
  redis.call('SETBIT', waiting, offset, 0)
  if redis.call('EXISTS', lapsed) == 1 then redis.call('SETBIT', lapsed, offset, 0) end
  add('waiting', -1)
end
redis.call('HDEL', missed, position)
setFates(fates, {offset}, FATE_LEFT)
add('left', 1)
if declined then
  append('done', 'p', position, 'f', FATE_LEFT, 'r', REASON_DECLINED)
else
  append('done', 'p', position, 'f', FATE_LEFT)
end
return done()
