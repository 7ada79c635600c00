"""The messages of commands that fail."""

from __future__ import annotations

import pytest

from esockd_cli._errors import UsageError


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("port 0 is closed.", "port 0 is closed."),
        ("port 0 is closed. Open it..", "port 0 is closed. Open it."),
        ("it is in /usr/...", "it is in /usr/..."),
    ],
)
def test_a_message_that_ends_with_the_text_of_another_error_has_one_full_stop(given: str, shown: str) -> None:
    assert (UsageError(given).message, str(UsageError(given))) == (shown, shown)
