"""The rate limits that run in Redis: one script for each way to count.

Each exists for a given clock as well, so that tests can compare it with the limiter in Rust.
"""

from __future__ import annotations

from bascule._redis import RedisScript
from bascule.resilience._limiter import LimitAlgorithm

__all__ = ["BODIES", "EXACT", "SCRIPTS"]

#: Lua counts in doubles, which are exact below this, as are quotients and remainders.
EXACT = 2**52

# All scripts. KEYS: one; ARGV: limit, period in us, burst, cost. They return whether it is allowed,
# what is left, and the microseconds until all of it is there again and until the cost would be.
_COMMON = """
local limit, period, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local cost = tonumber(ARGV[4])
local function over(a, b) return (a - a % b) / b end
local function ceil(a, b) return over(a + b - 1, b) end
local kept = redis.call('GET', KEYS[1]) or ''
"""

# The generic cell rate algorithm (ITU-T I.371), exactly: the theoretical arrival time is kept as whole
# microseconds and a numerator over ``limit``, so that a rate that does not divide the period loses
# nothing.
_GCRA = """
-- What is used, in limit-ths of a microsecond: a unit is worth one period of them.
local used, full = 0, burst * period
local whole, part = string.match(kept, '^(%d+) (%d+)$')
if whole then
  used = math.min(full, math.max(0, (tonumber(whole) - now) * limit + tonumber(part)))
end
local excess = used + cost * period - full
local allowed = 0
if excess <= 0 then
  allowed = 1
  used = used + cost * period
  if cost > 0 then
    local kept = string.format('%.0f %.0f', now + over(used, limit), used % limit)
    redis.call('SET', KEYS[1], kept, 'PX', ceil(used, limit * 1000))
  end
end
local retry = -1
if cost <= burst then retry = ceil(math.max(0, excess), limit) end
return {allowed, over(full - used, period), ceil(used, limit), retry}
"""

# The sliding window, as rust/policy/src/limit/sliding_window.rs has it. Kept are the window's beginning
# and what was taken in the window before it and in itself.
_SLIDING_WINDOW = """
local start, before, current = now - now % period, 0, 0
local kept_start, kept_before, kept_current = string.match(kept, '^(%d+) (%d+) (%d+)$')
if kept_start then
  local windows = over(start - math.min(start, tonumber(kept_start)), period)
  -- One that lies ahead of a clock that went backwards counts as this one: it blocks no longer.
  if windows == 0 then
    before, current = tonumber(kept_before), tonumber(kept_current)
  elseif windows == 1 then
    before = tonumber(kept_current)
  end
end
local elapsed = now - start
local left = limit - current - ceil(before * (period - elapsed), period)
local allowed, retry = 0, -1
if cost <= left then
  allowed, retry = 1, 0
  current, left = current + cost, left - cost
elseif cost <= limit then
  -- How much of a window must pass until no more than so much of the window before it counts.
  local function faded(before, room)
    if before <= room then return 0 end
    return period - over(room * period, before)
  end
  if cost + current <= limit then
    retry = faded(before, limit - cost - current) - elapsed
  else
    retry = period + faded(current, limit - cost) - elapsed
  end
end
local reset = 0
if current > 0 then reset = 2 * period - elapsed elseif before > 0 then reset = period - elapsed end
if allowed == 1 and cost > 0 then
  local kept = string.format('%.0f %.0f %.0f', start, before, current)
  redis.call('SET', KEYS[1], kept, 'PX', ceil(reset, 1000))
end
return {allowed, left, reset, retry}
"""

#: Each as it is, but for the clock: ``now`` has to be set, in microseconds.
BODIES = {
    LimitAlgorithm.GCRA: _COMMON + _GCRA,
    # It decides as GCRA does.
    LimitAlgorithm.TOKEN_BUCKET: _COMMON + _GCRA,
    LimitAlgorithm.SLIDING_WINDOW: _COMMON + _SLIDING_WINDOW,
}

_CLOCK = "local time = redis.call('TIME')\nlocal now = time[1] * 1000000 + time[2]\n"

#: By the clock of Redis.
SCRIPTS = {algorithm: RedisScript(_CLOCK + body) for algorithm, body in BODIES.items()}
