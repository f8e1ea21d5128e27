"""What runs inside Redis, each atomically: writing through, and repairing."""

#: Write entries and move positions, together or not at all. An entry never goes back: it takes the place of one that is
#: older by its own order, or as old and from no later place in the log. Overwrites what is no entry of ours.
#:
#: KEYS: the hash of positions, then one key per operation.
#: ARGV: how many positions; per position field, text expected ("" for none), new text; then per operation its order
#: (two numbers), partition, offset, milliseconds to live and value. Without a value it removes the entry with the same
#: first number, if that is not of a later order.
#: Returns the number of entries changed, or -1 where a position is not the one expected and nothing was changed.
WRITE = """
local function order(value)
  local number = '(%-?%d+)'
  local head = '^{"asOf":' .. number .. ',"partition":' .. number .. ',"offset":' .. number
  local as_of, partition, offset = string.match(value, head)
  if not as_of then return nil end
  local _, _, _, start, revision = string.match(value, head .. ',"start":' .. number .. ',"revision":' .. number)
  return tonumber(start or as_of), tonumber(revision or 0), tonumber(partition), tonumber(offset)
end

local positions = KEYS[1]
local kind = redis.call('TYPE', positions).ok
-- Not for nothing: after any write a script may go on over maxmemory, and the first one below is refused there.
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', positions) end
local count = tonumber(ARGV[1])
for at = 2, 3 * count + 1, 3 do
  if (redis.call('HGET', positions, ARGV[at]) or '') ~= ARGV[at + 1] then return -1 end
end
for at = 2, 3 * count + 1, 3 do
  redis.call('HSET', positions, ARGV[at], ARGV[at + 2])
end
local changed, at = 0, 3 * count + 2
for place = 2, #KEYS do
  local old = redis.pcall('GET', KEYS[place])
  local major, minor, partition, offset
  if type(old) == 'string' then major, minor, partition, offset = order(old) end
  local x, y = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  if ARGV[at + 5] == '' then
    if major == x and minor <= y then changed = changed + redis.call('DEL', KEYS[place]) end
  else
    local same = major == x and minor == y
    local later = same and (partition ~= tonumber(ARGV[at + 2]) or offset <= tonumber(ARGV[at + 3]))
    if not major or x > major or (x == major and y > minor) or later then
      redis.call('SET', KEYS[place], ARGV[at + 5], 'PX', ARGV[at + 4])
      changed = changed + 1
    end
  end
  at = at + 6
end
return changed
"""

#: Replace entries that are still the ones that were judged: whoever wrote meanwhile knew better.
#:
#: KEYS: of entries. ARGV: per key the value judged ("" for none), the right one ("" for none), milliseconds to live.
#: Returns per key whether it was replaced, as 0 or 1.
REPAIR = """
local done = {}
for place = 1, #KEYS do
  local at = 3 * place - 2
  local old = redis.pcall('GET', KEYS[place])
  if type(old) ~= 'string' then old = '' end
  done[place] = 0
  if old == ARGV[at] then
    if ARGV[at + 1] == '' then
      redis.call('DEL', KEYS[place])
    else
      redis.call('SET', KEYS[place], ARGV[at + 1], 'PX', ARGV[at + 2])
    end
    done[place] = 1
  end
end
return done
"""
