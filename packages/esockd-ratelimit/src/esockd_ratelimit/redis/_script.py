"""The token bucket as a script that a Redis or Valkey server runs atomically, in whole numbers like `_bucket`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from esockd_ratelimit._errors import InvalidRate

if TYPE_CHECKING:
    from esockd_ratelimit._rate import Rate

US_PER_S: Final = 10**6
EXACT_IN_LUA: Final = 2**53  # numbers in a script are doubles: whole numbers are exact up to here

# The state is the number of units that the bucket holds (level) at a microsecond of the server's clock (at). A
# microsecond refills ARGV[1] units, a token takes ARGV[2], and the bucket holds ARGV[3]: whole numbers, none above
# 2**53. The script takes at least ARGV[4] and at most ARGV[5] tokens, or none; negative numbers give tokens back. It
# returns what was taken, and the microseconds until ARGV[4] tokens would be there (-1 for never).
#
# A wall clock that was set back must not stop the bucket: elapsed time counts as 0 once, and from the new time on after
# that. The key expires one second after the bucket is full, never before: a missing key means a full bucket. Without
# refill it does not expire.
SCRIPT: Final = """
local per_us, token, capacity = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local least, most = tonumber(ARGV[4]), tonumber(ARGV[5])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local state = redis.call('HMGET', KEYS[1], 'at', 'level', 'token')
local level, turned_back = capacity, false
if state[1] then
    local at, unit = tonumber(state[1]), tonumber(state[3])
    level = tonumber(state[2])
    if unit ~= token then level = math.floor(level / unit * token) end
    turned_back = now < at
    local refilled = math.max(now - at, 0) * per_us
    if refilled >= capacity - level then level = capacity else level = level + refilled end
end
local have = (level - level % token) / token
local taken, wait_us = 0, 0
if have >= least then
    taken = math.min(have, most)
elseif per_us > 0 then
    wait_us = math.ceil((least * token - level) / per_us)
else
    wait_us = -1
end
if taken ~= 0 or turned_back then
    level = math.min(level - taken * token, capacity)
    redis.call('HSET', KEYS[1], 'at', string.format('%.0f', now), 'level', string.format('%.0f', level), 'token', token)
    if per_us > 0 then
        redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.ceil((capacity - level) / per_us / 1000) + 1000))
    else
        redis.call('PERSIST', KEYS[1])
    end
end
return {taken, wait_us}
"""


def script_units(rate: Rate) -> tuple[int, int, int]:
    """The units of a microsecond, a token and a full bucket, as the script takes them.

    Raises:
        InvalidRate: If they would not be exact in the script.
    """
    token = rate.per_s.denominator * US_PER_S
    finer = (rate.burst * token).denominator
    units = (rate.per_s.numerator * finer, token * finer, int(rate.burst * token * finer))
    if max(units) > EXACT_IN_LUA:
        raise InvalidRate(
            f"with a burst of {float(rate.burst):g} it needs numbers above 2**53 in the script",
            option="rate",
            value=str(rate),
            hint='Write it exactly, as Rate.parse("5/min") or Fraction(5, 60) instead of the float 5 / 60, or use a'
            " smaller burst.",
        )
    return units
