-- Makes a queue.
local incarnation, generation = text(), text()
local existing = redis.call('HGET', META, 'incarnation')
if existing and existing ~= incarnation then return {'EXISTS'} end
if existing then
  open('generations', 'created', 'version', 'settings')
  return done(m.incarnation, m.generations, m.created, m.version, m.settings)
end
set('incarnation', incarnation)
set('generations', generation)
set('created', now)
set('version', 1)
takeSettings()
set('live', '')
set('turn', 1)
set('oldest', 1)
set('turnStarted', now)
set('lastTick', now)
set('idle', 1)
append('settings', 'j', m.settings)
return done(m.incarnation, m.generations, m.created, m.version, m.settings)
