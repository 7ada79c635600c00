"""Where a listener is in its life."""

from __future__ import annotations

from typing import Literal, TypeAlias

ListenerState: TypeAlias = Literal["new", "running", "suspended", "draining", "closed"]

RehearsalState: TypeAlias = Literal["running", "over", "committed", "cancelled"]
