-- Replaces the settings. Offers are withdrawn when the new state does not keep them; every offer
-- lies in a live page.
local refusal = open('generations', 'created', 'version', 'settings', 'hold', 'holdRuns', 'rules', 'waiting')
if refusal then return refusal end
local version, named, keepsOffers = number(), text(), text() == '1'
local function answer() return done(m.incarnation, m.generations, m.created, m.version, m.settings) end

if num('version') == version + 1 and m.settings == ARGV[argsTaken + 1] then return answer() end
if num('version') ~= version then return {'CONFLICT'} end
local withdrawn = {}
if not keepsOffers then
  if named ~= kept() then return again() end
  for i, position in ipairs(redis.call('ZRANGE', OFFERS, 0, -1)) do withdrawn[i] = tonumber(position) end
  table.sort(withdrawn)
end

local wasHold, heldBefore, wasRules = m.hold, m.holdRuns, m.rules
takeSettings()
set('version', version + 1)
if m.rules ~= wasRules then
  set('joinSlots', 0)
  set('estimate', '') -- it was made for the settings before
end
if m.hold ~= wasHold or (heldBefore ~= '1' and m.holdRuns == '1') then
  set('fresh', m.turn)
end
append('settings', 'j', m.settings)
if #withdrawn > 0 then
  redis.call('DEL', OFFERS)
  local lists = byPage(withdrawn)
  for page in string.gmatch(m.live, '%d+') do
    local waiting, offsets = key(), lists[tonumber(page)]
    if offsets then
      ensure(waiting, PAGE_BYTES)
      write(waiting, 'u1', offsets, 1)
    end
  end
  add('waiting', #withdrawn)
  append('withdrawn', 'p', fold(withdrawn))
end
return answer()
