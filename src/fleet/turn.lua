-- One turn of a process, as in `ledger.rs` and `learn.rs`, where everything is explained.
-- KEYS: the ledger, the members, the places. ARGV: the layout, the channel, the names of what follows, and then their values; who
-- asks; and what was told of counters, five numbers for each.
local layout, channel = tonumber(ARGV[1]), ARGV[2]
local t, i = {}, 4
for name in string.gmatch(ARGV[3], '%S+') do
  t[name] = tonumber(ARGV[i])
  i = i + 1
end
local names = {
  'epoch', 'closed', 'next', 'seq', 'pace', 'measured', 'paced', 'start', 'ok', 'idle', 'failures', 'shut', 'wait', 'untold',
  'reopened', 'ceiling', 'rest', 'pause', 'round_trip', 'probe', 'probe_until', 'base', 'anew', 'input', 'output', 'accepted', 'refused',
}
local s, counters, counted = {}, {}, 0
local stored = redis.call('HGETALL', KEYS[1])
for n = 1, #stored, 2 do
  local name, value = stored[n], stored[n + 1]
  if string.sub(name, 1, 1) == '#' then
    local c, fields = {}, string.gmatch(value, '%S+')
    for _, field in ipairs({ 'bound', 'at', 'reset', 'base', 'flows' }) do c[field] = tonumber(fields()) end
    counters[tonumber(string.sub(name, 2))], counted = c, counted + 1
  else
    s[name] = name == 'layout' and value or tonumber(value)
  end
end
if #stored > 0 and not s.layout then return redis.error_reply('FOREIGN a hash') end
if s.layout and tonumber(s.layout) ~= layout then return redis.error_reply('LAYOUT ' .. s.layout) end
for _, name in ipairs(names) do s[name] = s[name] or 0 end
local now = t.now
if now == 0 then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1e6 + tonumber(time[2])
end
local max, min = math.max, math.min
local function text(number) return string.format('%.17g', number) end

if t.leaves == 1 then
  redis.call('ZREM', KEYS[2], ARGV[i])
else
  redis.call('ZADD', KEYS[2], now, ARGV[i])
end
if t.most > 0 then
  for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - t.alive)) do
    redis.call('HDEL', KEYS[3], dead, dead .. '?')
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - t.alive)
local members = redis.call('ZCARD', KEYS[2])

local function refuse()
  s.epoch, s.refused, s.failures = s.epoch + 1, s.refused + 1, s.failures + 1
  if s.failures == 1 then s.shut, s.ceiling = now, s.pace end
  s.rest = max(s.rest, 0) + 1 / max(t.budget, 1e-9)
  if s.failures > 1 then s.wait = s.wait * (s.wait < 4e6 and 2 or 1.5)
  elseif s.measured == 1 then s.wait = 1.5e6 / s.pace
  else s.wait = 0.25e6 end
  s.wait = min(max(s.wait, s.round_trip / 2), 600e6)
  if s.failures == 1 and s.measured == 1 then
    local closing = t.told > 0 and t.told or s.wait
    local run = max(now - (s.reopened > 0 and s.reopened or s.start), 0)
    s.pace = max(s.pace * (1 - min(max(0.25 * closing / (closing + run), 0.02), 0.2)), 1 / 600)
  end
  s.untold = t.told > 0 and 0 or s.wait
  s.closed = max(s.closed, now + (t.told > 0 and t.told or s.wait))
  s.next, s.reopened, s.probe = s.closed, 0, 0
end

local function reopen()
  s.pause = max(s.reopened - s.shut, 0)
  local late = s.untold > 0 and s.untold / 2 or min(s.pause, 1e6)
  local elapsed = (s.reopened - late - s.start - s.idle) / 1e6
  local measured = 0.995 * s.ok / max(elapsed, 1e-3)
  local partial = s.anew == 1 and s.pause > 0.5 * (s.shut - s.start)
  local meaningful, first = s.ok >= 32 and not partial, s.measured == 0
  if first then
    local short = s.failures == 1 and s.pause < max(1.1e6, 4 * s.round_trip)
    s.measured = 1
    s.pace = min(max(measured, short and 0.7 * s.pace or 1 / 600, 1 / 600), max(s.pace, 1 / 600))
    s.ceiling = max(meaningful and 0 or s.ceiling, 1.25 * s.pace)
  elseif meaningful then
    if measured < s.pace then
      s.pace = max(measured, s.pace / 2, 1 / 600)
      s.ceiling = s.pace
    end
    s.rest = max(s.rest, 50 * s.pause / 1e6 * s.pace)
  end
  s.failures, s.wait, s.base = 0, 0, s.pace
  if meaningful or partial then s.start, s.ok, s.idle, s.anew = s.reopened, 0, 0, 0
  else s.idle = s.idle + late end
  if first or not (meaningful or partial) then s.rest = min(s.rest, 1 / max(t.budget, 1e-9)) end
end

local function grow()
  if s.measured == 0 then
    s.pace = min(max(s.pace, s.ok / 8 * 1e6 / max(s.round_trip, 1)), 1e6)
    s.ceiling = s.pace
  elseif s.rest <= 0 and t.budget > 0 then
    local growth = 0.00025 * t.budget / 0.01 * (1 + 20 * math.abs(s.pace / s.ceiling - 1))
    local hold = max(s.pause, 4 * s.round_trip, 5e6, 8e6 / s.pace)
    local most = (s.pace < 0.75 * s.ceiling and 1 or 0.04) * 1e6 / (hold * s.pace)
    s.pace = min(s.pace * math.exp(min(growth, most) * t.accepted), 1e6)
    if s.pace > 1.15 * s.base then s.base, s.start, s.ok, s.idle, s.anew = s.pace, now, 0, 0, 1 end
  end
end

-- As in `counters.rs`.
local touched = {}
local function read()
  for n = i + 1, #ARGV - 4, 5 do
    local key, bound, at = tonumber(ARGV[n]), tonumber(ARGV[n + 1]), tonumber(ARGV[n + 2])
    local c, ours = counters[key], true
    if not c and counted >= 8 then
      local gone
      for other, o in pairs(counters) do
        if o.reset < now and (not gone or o.reset < counters[gone].reset) then gone = other end
      end
      if gone then counters[gone], touched[gone], counted = nil, true, counted - 1 end
    end
    if not c and counted < 8 then
      c, counted = { bound = 0, at = 0, reset = 0, base = 0, flows = 0 }, counted + 1
      counters[key] = c
    elseif not c or at < c.at then
      ours = false
    end
    if ours then
      if c.reset <= now then c.base = bound
      elseif bound > c.base + tonumber(ARGV[n + 4]) then c.flows = 1 end
      c.base = min(c.base, bound)
      c.bound, c.at, c.reset = c.base, at, now + tonumber(ARGV[n + 3])
      touched[key] = true
    end
  end
end

local function hold_back(count, first)
  local used = { s.seq, s.input + s.output, s.input, s.output }
  local each = { 1, t.input + t.output, t.input, t.output }
  for key, c in pairs(counters) do
    local unit = key % 4 + 1
    if c.bound ~= 0 and c.reset > now + 2e6 and c.flows == 0 and each[unit] > 0 then
      local left = math.floor((c.bound - used[unit]) / each[unit])
      if left < 1 then
        first = max(first, c.reset + 0.02e6)
        c.bound, touched[key] = 0, true
      else
        count = min(count, left)
      end
    end
  end
  return count, first
end

local function report()
  local accepted, news = t.accepted + t.late, 0
  if t.round_trip > 0 then
    s.round_trip = s.round_trip == 0 and t.round_trip or s.round_trip + (t.round_trip - s.round_trip) / 8
  end
  read()
  s.input, s.output = max(s.input + t.more_input, 0), max(s.output + t.more_output, 0)
  s.accepted, s.refused = s.accepted + accepted, s.refused + t.also_refused
  s.rest = s.rest + (t.also_refused / max(t.budget, 1e-9) - accepted)
  local current = t.epoch == s.epoch
  if t.accepted > 0 and current and s.failures > 0 and s.reopened > 0 and now >= s.reopened then
    if s.failures > 1 or s.measured == 0 then news = 1 end
    reopen()
  end
  s.ok = s.ok + accepted
  if t.accepted > 0 and current and s.failures == 0 and s.paced == 1 then grow() end
  if t.refused > 0 and current then
    refuse()
    return 1
  end
  s.refused, s.rest = s.refused + t.refused, s.rest + t.refused / max(t.budget, 1e-9)
  if t.told > 0 and now + t.told > s.closed then
    s.closed = now + t.told
    s.next, news = max(s.next, s.closed), 1
  end
  return news
end

if s.pace == 0 then
  s.pace = t.pace > 0 and t.pace or t.first_pace
  s.measured = (t.pace > 0 or t.seeded == 1) and 1 or 0
  if t.pace > 0 then s.next, s.rest = now + 0.1e6, 10 * s.pace end
  s.ceiling, s.epoch, s.closed = s.pace, t.epoch, now + t.closed
elseif t.epoch > s.epoch then
  s.epoch, s.closed = t.epoch, max(s.closed, now + t.closed)
end
local news = report()
if t.opens == 1 then
  s.epoch, s.closed, s.next, s.failures, s.wait, s.probe, news = s.epoch + 1, now, now, 0, 0, 0, 1
end
local count, first, gap, seq, hold, input, output = 0, 0, 0, 0, 0, 0, 0

-- As in `places.rs`. Places are by process, tickets by process and a question mark.
local places, lack, short, to = 0, 0, 0, 0
local function share()
  local own, held, waiting, tickets, sum, waited = ARGV[i], {}, {}, 0, 0, false
  local stored = redis.call('HGETALL', KEYS[3])
  for n = 1, #stored, 2 do
    local name, value = stored[n], tonumber(stored[n + 1])
    local waits = string.match(name, '^(%d+)%?$')
    if waits then waiting[waits], waited = value, true
    elseif name == 'tickets' then tickets = value
    else held[name], sum = value, sum + value end
  end
  local function set(name, value)
    if value > 0 then redis.call('HSET', KEYS[3], name, text(value)) else redis.call('HDEL', KEYS[3], name) end
  end
  local before, need = held[own] or 0, t.leaves == 1 and 0 or t.need
  places = t.leaves == 1 and 0 or max((t.anew == 1 and 0 or before - t.drops), t.flying)
  if need <= places then
    waiting[own] = nil
  elseif not waiting[own] or t.drops > 0 then
    tickets = tickets + 1
    waiting[own] = tickets
  end
  held[own] = places
  local free = t.most - (sum - before + places)
  while free >= 1 do
    local best
    for name, ticket in pairs(waiting) do
      local a, b = held[name] or 0, best and (held[best] or 0)
      if not best or a < b or (a == b and ticket < waiting[best]) then best = name end
    end
    if best == own then
      places = places + 1
      held[own] = places
      if places >= need then waiting[own] = nil end
    elseif best and to == 0 then
      held[best], waiting[best], to = (held[best] or 0) + 1, nil, tonumber(best)
      set(best, held[best])
      set(best .. '?', 0)
    else
      break
    end
    free = free - 1
  end
  local least
  for name in pairs(waiting) do
    if name ~= own then least = min(least or held[name] or 0, held[name] or 0) end
  end
  if least then lack = max(places - least, 0) end
  if least or waiting[own] then short = 1 end
  if to ~= 0 or (short == 1 and not waited) then news = 1 end
  set(own, places)
  set(own .. '?', waiting[own] or 0)
  set('tickets', tickets)
  redis.call('PEXPIRE', KEYS[3], t.expire)
  if places == 0 and need > 0 then hold = 5e6 end
end
if t.most > 0 then share() end
if t.epoch == s.epoch and t.back ~= 0 then s.next = max(s.next - t.back * 1e6 / s.pace, now) end

local function give()
  first = max(s.next, s.closed, now)
  count = min(t.want, max(math.floor(s.pace * 0.1 / max(members, 1)), 1))
  if s.failures > 1 or (s.failures > 0 and s.measured == 0) then
    if s.probe ~= 0 and (s.probe ~= t.id or t.back <= 0) and s.probe_until > now then
      count, first, hold = 0, 0, s.probe_until - now
      return
    end
    s.probe, s.probe_until, count = t.id, first + max(3 * s.round_trip, 1e6), 1
  end
  count, first = hold_back(count, first)
  s.paced = (s.next >= now - 0.004e6 and s.next > 0) and 1 or 0
  if s.next > 0 and max(s.next, s.closed) < now then s.idle = s.idle + (now - max(s.next, s.closed)) end
  if s.start == 0 then s.start = first end
  if s.failures > 0 and s.reopened == 0 then s.reopened = first end
  gap, seq, input, output = 1e6 / s.pace, s.seq, s.input, s.output
  s.seq, s.input, s.output = s.seq + count, s.input + count * t.input, s.output + count * t.output
  s.next = first + count * 1e6 / s.pace
  first = first - now
end
if t.want > 0 and (t.most == 0 or places > 0) then give() end

local fields = { 'layout', tostring(layout) }
for _, name in ipairs(names) do
  fields[#fields + 1] = name
  fields[#fields + 1] = text(s[name])
end
for key in pairs(touched) do
  local c, name = counters[key], '#' .. text(key)
  if c then
    fields[#fields + 1] = name
    fields[#fields + 1] = table.concat({ text(c.bound), text(c.at), text(c.reset), text(c.base), text(c.flows) }, ' ')
  else
    redis.call('HDEL', KEYS[1], name)
  end
end
redis.call('HSET', KEYS[1], unpack(fields))
redis.call('PEXPIRE', KEYS[1], t.expire)
redis.call('PEXPIRE', KEYS[2], t.expire)

local closed = max(s.closed - now, 0)
local reply = {}
for n, value in ipairs({
  s.epoch, closed, s.pace, s.measured, members, count, first, gap, seq, hold, s.accepted, s.refused, news,
  places, lack, short, to, input, output,
}) do reply[n] = text(value) end
if news == 1 then
  -- Who may not publish is heard of with the next turns.
  redis.pcall('PUBLISH', channel, table.concat({ reply[1], reply[2], reply[3], reply[4], reply[5], reply[16], reply[17] }, ' '))
end
return reply
