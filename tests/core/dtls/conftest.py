"""What the tests of DTLS share: certificates, keys, the options of a server with one, and a listener with these."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.datagrams.udp import echo
from tests.patience import PATIENCE_S
from tests.ports import steady_address

from esockd_core import Listener, open_listener
from esockd_core._options.dtls import DtlsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from esockd_core import Handler

KEYS = {"sensor 7": b"k" * 32}


@pytest.fixture
def dtls(certificates: Path) -> DtlsOptions:
    """DTLS as "localhost"."""
    return DtlsOptions(certfile=certificates / "localhost.pem")


@asynccontextmanager
async def serving(dtls: DtlsOptions, handler: Handler = echo, **options: Any) -> AsyncIterator[Listener]:
    """A listener at an address that stays free, closed within `PATIENCE_S`."""
    with anyio.fail_after(PATIENCE_S):
        async with open_listener("dtls", f"dtls://{steady_address()}", handler, dtls=dtls, **options) as listener:
            yield listener
