-- Drops all pages of an idle queue in which nobody waits. The caller names them; if something
-- changed meanwhile there is nothing to do.
local refusal = open('idle', 'waiting')
if refusal then return refusal end
if m.idle == '1' and text() == kept() and num('waiting') == 0 and redis.call('ZCARD', OFFERS) == 0 then
  unlink(otherKeys())
  set('live', '')
end
return done()
