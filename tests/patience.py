"""How long tests wait for what has to happen: other test processes share the processors."""

from __future__ import annotations

from typing import Final

PATIENCE_S: Final = 60.0
