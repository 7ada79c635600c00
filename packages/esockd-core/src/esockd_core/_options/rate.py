"""Rates as options take them."""

from __future__ import annotations

from fractions import Fraction
from typing import TypeAlias

from esockd_ratelimit import Rate

RateLike: TypeAlias = str | int | float | Fraction | Rate
"""So many a second: `"500/s"`, `"500/s burst 1000"`, a number, or a `Rate`."""
