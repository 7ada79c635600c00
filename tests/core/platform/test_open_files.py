"""The limit on open files: what it leaves for connections, and raising it."""

from __future__ import annotations

import resource

import pytest

from esockd_core._platform import open_files as _limits

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("limit", "requested", "explicit", "expected", "warned"),
    [
        (1024, 960, True, 960, False),
        (1024, 961, True, 960, True),
        (1024, 100_000, False, 960, False),
        (100, 1024, False, 75, False),
        (256, 1024, False, 192, False),
        (1024, None, False, 960, False),
        (None, 10**9, True, 10**9, False),
        (None, None, True, None, False),
    ],
)
def test_max_connections_leaves_room_for_other_files(
    limit: int | None,
    requested: int | None,
    explicit: bool,
    expected: int | None,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = resource.RLIM_INFINITY if limit is None else limit
    monkeypatch.setattr(resource, "getrlimit", lambda _: (raw, raw))
    number, warning = _limits.clamp_max_connections(requested, explicit=explicit)
    assert number == expected
    assert (warning is not None) == warned


def test_lowering_an_explicit_max_connections_is_told_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert _limits.clamp_max_connections(100_000, explicit=True) == (
        960,
        "max_connections 100000 exceeds the open-file limit 1024; using 960. Raise it: ulimit -n",
    )


def test_the_soft_limit_on_open_files_can_be_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        assert _limits.raise_open_file_limit() == (None if hard == resource.RLIM_INFINITY else hard)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_system_that_caps_the_soft_limit_gets_as_much_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS says that there is no limit, and takes no more than OPEN_MAX."""
    limits = (256, resource.RLIM_INFINITY)

    def set_limits(_: int, wanted: tuple[int, int]) -> None:
        nonlocal limits
        if wanted[0] == resource.RLIM_INFINITY:
            raise ValueError("current limit exceeds maximum limit")
        limits = wanted

    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", set_limits)
    assert _limits.raise_open_file_limit() == 10_240
    limits = (20_000, resource.RLIM_INFINITY)
    assert _limits.raise_open_file_limit() == 20_000
