"""Whether a caller has been cancelled, where AnyIO's table of tasks cannot tell."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from esockd_ratelimit._cancellation import may_be_cancelled

if TYPE_CHECKING:
    import pytest


def test_anyio_is_asked_where_it_has_not_been_used_on_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "anyio._backends._asyncio", raising=False)
    assert may_be_cancelled()
