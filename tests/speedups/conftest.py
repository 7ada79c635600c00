"""Tests of esockd_speedups alone. `make test` has no compiler and leaves them out; `make wheels` runs them."""

from importlib.util import find_spec

import pytest

collect_ignore_glob = [] if find_spec("esockd_speedups") else ["test_*.py"]


@pytest.fixture(autouse=True)
def not_bound_yet() -> None:
    """Leave out what core has made impossible: it can be bound once in a process."""
    import esockd_speedups  # noqa: PLC0415 - only where it is installed

    if esockd_speedups.in_use():
        pytest.skip("core has bound it in this process; run tests/speedups alone")
