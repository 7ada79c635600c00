"""A reload that is asked for between the opening of the control socket and the first task of a run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from tests.cli.config.conftest import Running
from tests.cli.running import connect, talk
from tests.ports import steady_port

if TYPE_CHECKING:
    from pathlib import Path

HELD = """\
import sys
from pathlib import Path

import anyio

from esockd_cli._main import run_command_line
from esockd_cli._service import Service

ready = Service.ready


async def ready_once_told(service):
    Service.ready = ready
    while not Path("go").exists():
        await anyio.sleep(0.01)
    await ready(service)


Service.ready = ready_once_told
sys.exit(run_command_line(sys.argv[1:]))
"""


class Held(Running):
    """A run that begins no task before it is told to go on."""

    def __init__(self, folder: Path, text: str) -> None:
        (folder / "held.py").write_text(HELD)
        self.program = (sys.executable, folder / "held.py")
        super().__init__(folder, text)


def table(name: str, port: int) -> str:
    return f'[listeners.{name}]\nhandler = "echo"\nlisten = "127.0.0.1:{port}"\n'


@pytest.mark.parametrize("head", ["", "[esockd]\nworkers = 2\n"], ids=["alone", "workers"])
def test_a_listener_gives_its_address_to_another_one_before_the_first_task_of_the_run(
    tmp_path: Path, head: str
) -> None:
    port = steady_port()
    with Held(tmp_path, head + table("one", port)) as edge:
        answer = edge.reload(head + table("two", port))
        assert answer == (0, f"two 127.0.0.1:{port}: opened\none 127.0.0.1:{port}: drained\n", "")
        with connect(port) as client:
            assert talk(client, b"hello") == b"hello"
        (tmp_path / "go").touch()
        edge.read_log_until(f"closed one 127.0.0.1:{port}: ")
        assert edge.stop().status == 0
