"""With `--log-format json` every line of stderr is a JSON object, whoever writes it."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import RunEsockd

NOISY = """
import logging
import threading
import warnings


class Unraisable:
    def __del__(self):
        raise ValueError("in __del__")


def fail():
    raise RuntimeError("in a thread")


async def handle(connection):
    warnings.warn("old")
    logging.getLogger("app").error("two\\nlines")
    Unraisable()
    thread = threading.Thread(target=fail, name="worker")
    thread.start()
    thread.join()
    await connection.send(b"hello")
    raise KeyError("in the handler")
"""


@pytest.mark.parametrize("form", [["--log-format", "json"], ["--log-format=json", "-v"]])
def test_what_a_program_and_python_itself_write_are_json(
    start: Callable[..., Any], tmp_path: Path, loop: str, form: list[str]
) -> None:
    (tmp_path / "app.py").write_text(NOISY)
    command = start("open", "app:handle", "127.0.0.1:0", "--loop", loop, *form)
    with command.connect(command.read_port()) as client:
        assert command.receive(client, 6) == b"hello"
    command.signal(signal.SIGUSR1)
    status, out, err = command.stop()
    assert (status, out) == (0, "")
    lines = [json.loads(line) for line in err.splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    texts = [line["message"] for line in lines]
    for words in (
        "UserWarning: old",
        "two\nlines",
        "Unraisable.__del__",
        "thread worker failed: RuntimeError('in a thread')",
        "serving on ",
        "SIGTERM: closing",
        "1 accepted",
    ):
        assert [text for text in texts if words in text], f"{words} is missing"
    failed = [line for line in lines if "KeyError: 'in the handler'" in line.get("exception", "")]
    assert failed[0]["level"] == "error"
    assert failed[0]["peer"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["ehco", "0"],
        ["echo", "0", "--max-conections", "5"],
        ["echo", "80x"],
        ["echo", "0", "--idle-timeout", "5"],
        ["echo"],
    ],
)
def test_a_wrong_command_line_is_told_in_json(esockd: RunEsockd, arguments: list[str]) -> None:
    for form in (["--log-format", "json"], ["--log-format=json"]):
        status, out, err = esockd("open", *arguments, *form)
        assert (status, out) == (2, "")
        assert json.loads(err)["error"].keys() == {"code", "message", "hint"}


def test_a_traceback_is_part_of_the_error(esockd: RunEsockd, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import json\njson.loads('')\n")
    for form in (["--log-format", "json"], ["--json"]):
        _, _, err = esockd("open", "app:handle", "0", "-v", *form)
        assert "JSONDecodeError" in json.loads(err)["error"]["traceback"]


def test_without_it_data_is_text_still(start: Callable[..., Any]) -> None:
    command = start("open", "echo", "127.0.0.1:0", "--log-format", "json")
    assert command.read_line().startswith("echo listening on 127.0.0.1:")
    assert command.stop()[0] == 0
