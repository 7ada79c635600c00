"""What the tests of DTLS share: certificates, and the options of a server with one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from esockd_core._options.dtls import DtlsOptions

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def dtls(certificates: Path) -> DtlsOptions:
    """DTLS as "localhost"."""
    return DtlsOptions(certfile=certificates / "localhost.pem")
