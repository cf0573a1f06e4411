-- Reads a tenant's list after a cursor, which is an era and a number. The era changes when the
-- list was lost, so that a cursor of the lost list is told from one of the new.
local era, after = ARGV[2], tonumber(ARGV[3])
local meta = redis.call('HMGET', META, 'era', 'last', 'trimmed')
local last, reset = tonumber(meta[2] or 0), 0
if era ~= '' or after ~= 0 then
  if era ~= meta[1] or after > last or after < tonumber(meta[3] or 0) then after, reset = 0, 1 end
end
local list = {}
for i, item in ipairs(redis.call('XRANGE', STREAM, string.format('(%.0f-0', after), '+')) do
  list[i] = {item[2][2], item[2][4]}
end
return {'ok', meta[1] or '', last, reset, list}
