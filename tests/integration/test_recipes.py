"""Every recipe does what it says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast

import pytest
from tests.cli.running import connect
from tests.integration.tour import TIMEOUT_S, take_tour, wait_for
from tests.ports import steady_port

if TYPE_CHECKING:
    import socket

    from tests.conftest import RequireTool

FOLDER: Final = Path(__file__).resolve().parents[2] / "docs" / "recipes"
NGINX_MODULE: Final = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
PAGES: Final = sorted(page.stem for page in FOLDER.glob("*.md") if page.stem != "README")
BY_A_TEST_OF_ITS_OWN: Final = "zero-downtime"


def test_the_first_page_names_every_recipe() -> None:
    first_page = (FOLDER / "README.md").read_text()
    assert [page for page in PAGES if f"]({page}.md)" not in first_page] == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [page for page in PAGES if page != BY_A_TEST_OF_ITS_OWN])
def test_every_command_of_a_recipe_does_what_it_says(page: str, tmp_path: Path, require_tool: RequireTool) -> None:
    if page == "load-balancer" and not NGINX_MODULE.exists():
        pytest.skip("needs nginx's stream module, which is not installed (.ci/run lists the Debian packages)")
    require_tool("openssl")
    require_tool("curl")
    assert take_tour(FOLDER / f"{page}.md", tmp_path, require_tool) >= 2


@pytest.mark.timeout(300)
def test_the_program_of_the_recipe_is_replaced_by_its_next_version_and_no_client_is_lost(tmp_path: Path) -> None:
    port = steady_port()
    page = (FOLDER / f"{BY_A_TEST_OF_ITS_OWN}.md").read_text()
    [block] = re.findall(r"```python\n# main.py\n(.*?)```", page, re.DOTALL)
    code = block.replace("5000", str(port))
    program = tmp_path / "main.py"
    program.write_text(code)
    environment = {**os.environ, "ESOCKD_RUNTIME_DIR": str(tmp_path / "runtime")}
    command = [sys.executable, str(program)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True) as first:
        try:
            wait_for(port)
            errors = cast("IO[str]", first.stderr)
            with connect(port) as old:
                assert ask(old) == b"version 1\n"

                program.write_text("import nothing_like_this\n")
                first.send_signal(signal.SIGUSR2)
                while "the new program cannot take over" not in errors.readline():
                    assert first.poll() is None
                with connect(port) as client:
                    assert ask(client) == b"version 1\n"

                program.write_text(code.replace("VERSION = 1", "VERSION = __import__('os').getpid()"))
                first.send_signal(signal.SIGUSR2)
                assert old.recv(100) == b"come back\n"
                assert old.recv(100) == b""
            with connect(port) as client:
                pid = int(ask(client).removeprefix(b"version "))
            assert first.wait(TIMEOUT_S) == 0
            assert pid != first.pid
            os.kill(pid, signal.SIGTERM)
            assert errors.read() == ""  # until both have ended
        finally:
            with suppress(ProcessLookupError):
                os.killpg(first.pid, signal.SIGKILL)


def ask(client: socket.socket) -> bytes:
    """The answer to a line."""
    client.sendall(b"which?\n")
    return client.recv(100)
