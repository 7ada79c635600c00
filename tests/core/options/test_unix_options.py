"""Options of Unix paths: refused when built if wrong."""

from __future__ import annotations

from typing import Any

import pytest

from esockd_core._errors import InvalidOption
from esockd_core._options.unix import UnixOptions

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"mode": 0o1000}, "unix.mode is 512: it takes permission bits such as 0o660, 0 to 0o777"),
        ({"mode": -1}, "unix.mode is -1"),
        ({"mode": True}, "unix.mode is True"),
        ({"mode": "660"}, "unix.mode is '660'"),
        ({"owner": "no such user"}, "no such user"),
        ({"group": "no such group"}, "no such group"),
        ({"owner": -1}, "unix.owner is -1: it takes a name, or a number from 0"),
        ({"group": 2**32 - 1}, "unix.group is 4294967295"),
        ({"owner": 1.5}, "unix.owner is 1.5"),
    ],
)
def test_wrong_options_of_a_path_are_refused_when_built(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        UnixOptions(**wrong)
    assert told in str(caught.value)
