"""The messages of commands that fail."""

from __future__ import annotations

import errno

import pytest

from esockd_cli import _app
from esockd_cli._errors import UsageError
from esockd_cli._main import run_command_line


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


def test_a_command_that_may_open_no_more_files_cannot_start_and_says_what_to_raise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: list[str]) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(_app, "run_app", run)
    assert run_command_line(["open", "echo", "5000"]) == 3
    assert capsys.readouterr().err == "error: Too many open files. Raise the limit on open files: ulimit -n\n"
