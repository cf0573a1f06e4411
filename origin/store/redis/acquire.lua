-- Takes the lease. The caller proposes an epoch, which is random so that it never repeats, and
-- names the bitmaps to be dropped if a turn begins.
local refusal = open('epoch', 'idle')
if refusal then return refusal end
local owner, ttl, epoch, named = text(), number(), text(), text()
if leased() then
  if m.owner ~= owner then return {'LEASEHELD'} end
  set('leaseUntil', now + ttl)
  return done(m.epoch)
end
if m.idle == '1' then
  if named ~= kept() then return again() end
  set('lastTick', now)
  beginTurn(now, otherKeys())
end
set('owner', owner)
set('epoch', epoch)
set('leaseUntil', now + ttl)
set('idle', 0)
set('ticked', 0)
return done(epoch)
