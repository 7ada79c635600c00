"""How the port of a listener takes several datagrams that wait: by one call, or by one call each."""

from __future__ import annotations

import pytest

from esockd_core._platform import datagram_batch


@pytest.fixture(params=["by one call", "one by one"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test with a system that has recvmmsg(2), and as if it had none."""
    chosen: str = request.param
    if chosen == "by one call":
        if not datagram_batch.batches_work():
            pytest.skip("the system has no recvmmsg(2)")
    else:
        monkeypatch.setattr("esockd_core._connection.port.batches_work", lambda: False)
    return chosen
