-- Gives the lease up.
local refusal = open('epoch')
if refusal then return refusal end
local owner, epoch = text(), text()
if m.owner == owner and m.epoch == epoch then
  set('owner', '')
  set('leaseUntil', 0)
end
return done()
