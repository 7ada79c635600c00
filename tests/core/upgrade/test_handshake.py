"""What `replace_program` does when the new program fails at any step, or takes over."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import anyio
import pytest
from anyio.lowlevel import checkpoint

from esockd_core import ControlClient, ControlError, ControlServer, Server
from esockd_core._sockets import handed_over
from esockd_core.handlers import echo
from esockd_core.upgrade import Predecessor, _successor, replace_program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from esockd_core import Listener

pytestmark = pytest.mark.anyio

PASSES: Final = 100  # of the event loop, in which a client that is far away has sent nothing yet
SPEAKS: Final = """
import json, os, socket, sys, time
pair = socket.socket(fileno=int(os.environ["ESOCKD_UPGRADE"]))
lines = pair.makefile("rw")
say = lambda **message: (lines.write(json.dumps(message) + chr(10)), lines.flush())
told = json.loads(lines.readline())
"""


def program(*steps: str) -> list[str]:
    """A new program that speaks as one does, so far."""
    return [sys.executable, "-c", "\n".join((SPEAKS, *steps))]


@pytest.fixture(autouse=True)
def _nothing_open_of_others() -> Iterator[None]:
    """Forget what other tests of this process have open."""
    handed_over._open.clear()
    yield
    handed_over._open.clear()


@pytest.fixture
async def served() -> AsyncIterator[tuple[Listener, ControlServer]]:
    """An echo listener, with a control socket."""
    with TemporaryDirectory(prefix="esockd-") as folder, anyio.fail_after(40):
        async with Server() as server, ControlServer(server, "edge", path=f"{folder}/edge.sock") as control:
            yield await server.open("echo", "127.0.0.1:0", echo, shutdown_timeout=0.0), control


async def both_answer(listener: Listener, control: ControlServer) -> bool:
    async with await anyio.connect_tcp("127.0.0.1", listener.port or 0) as client:
        await client.send(b"hello")
        is_served = await client.receive() == b"hello"
    async with ControlClient(control.path or "") as client:
        return is_served and client.greeting.pid == os.getpid()


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (("sys.exit(7)",), "it ended with status 7"),
        (('say(error="no such module.")', "time.sleep(60)"), "no such module"),
        (('say(says="hello")', "time.sleep(60)"), "{'says': 'hello'}"),
        (("time.sleep(60)",), "it was not ready within"),
        (("pair.sendall(b'nonsense' + bytes([10]))", "time.sleep(60)"), "it hung up"),
        (('say(says="ready")', "lines.readline()", "sys.exit(8)"), "it ended with status 8"),
        (('say(says="ready")', "lines.readline()", 'say(error="late")', "time.sleep(60)"), "late"),
    ],
)
async def test_a_new_program_that_fails_at_any_step_changes_nothing(
    served: tuple[Listener, ControlServer], steps: tuple[str, ...], told: str
) -> None:
    listener, control = served
    timeout = 0.5 if "not ready" in told else 30.0
    with pytest.raises(ControlError, match="the new program cannot take over") as raised:
        await replace_program(control, timeout=timeout, command=program(*steps))
    assert told in raised.value.message
    assert not raised.value.message.endswith(".")  # who shows it goes on with "; this one goes on", or ends it
    assert await both_answer(listener, control)


async def test_a_python_that_is_gone_changes_nothing(served: tuple[Listener, ControlServer]) -> None:
    with pytest.raises(ControlError, match="cannot be started"):
        await replace_program(served[1], command=["/nowhere/python"])
    assert await both_answer(*served)


async def test_giving_up_ends_the_new_program_and_changes_nothing(
    served: tuple[Listener, ControlServer], tmp_path: Path
) -> None:
    steps = (f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()) + '.')", "time.sleep(60)")
    note = tmp_path / "pid"
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(lambda: replace_program(served[1], command=program(*steps)))
        while not (note.exists() and note.read_text(encoding="ascii").endswith(".")):  # noqa: ASYNC110
            await anyio.sleep(0.01)
        task_group.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text(encoding="ascii")[:-1]), 0)
    assert await both_answer(*served)


async def test_the_new_program_has_the_sockets_and_those_of_this_one_leave_their_queue_to_it(
    served: tuple[Listener, ControlServer],
) -> None:
    listener, control = served
    steps = (
        'say(says="ready")',
        'assert lines.readline() == \'{"says": "go"}\' + chr(10)',
        'say(says="done")',
        "assert lines.readline() == ''",
        "(listening,) = [each for each in told['sockets'] if each['address'] == '127.0.0.1:0'][0]['shares'][0]",
        "listening = socket.socket(fileno=listening)",
        "listening.setblocking(True)",
        "client, _ = listening.accept()",
        "client.sendall(client.recv(10).upper())",
    )
    pids: list[int] = []
    pid = await replace_program(control, command=program(*steps), on_replaced=pids.append)
    assert pids == [pid]
    await listener.suspend()
    path = Path(control.path or "")
    with socket.create_connection(("127.0.0.1", listener.port or 0), timeout=30) as client:
        await listener.close()
        client.setblocking(False)
        client.send(b"hello")
        await anyio.wait_readable(client)
        assert client.recv(10) == b"HELLO"
    assert path.exists()  # noqa: ASYNC240
    os.waitpid(pid, 0)  # noqa: ASYNC222 (it has nothing more to do)


async def test_a_client_that_was_accepted_last_is_answered_by_the_program_that_goes() -> None:
    with anyio.fail_after(20):
        async with Server() as server:
            listener = await server.open("echo", "127.0.0.1:0", echo)
            async with await anyio.connect_tcp("127.0.0.1", listener.port or 0) as client:
                while not listener.stats().current_connections:  # noqa: ASYNC110
                    await anyio.sleep(0.01)
                with socket.socket(fileno=os.dup(_descriptor_of(listener))):  # as the new program has it
                    handed_over.leave_open_addresses()
                    async with anyio.create_task_group() as task_group:
                        task_group.start_soon(listener.close)
                        await listener.wait_draining()
                        for _ in range(PASSES):
                            await checkpoint()
                        await client.send(b"hello")
                        assert await client.receive() == b"hello"
                        await client.aclose()


def _descriptor_of(listener: Listener) -> int:
    (opened,) = [each for each in handed_over.open_addresses() if each.asked == str(listener.address)]
    return opened.shares[0][0].fileno()


async def test_a_predecessor_that_has_died_holds_the_new_program_up_no_longer() -> None:
    ours, theirs = socket.socketpair()
    with anyio.fail_after(20):
        theirs.close()
        predecessor = Predecessor(ours, 1)
        await predecessor.ready()
        await predecessor.took_over()


def test_a_new_program_goes_on_when_the_one_before_was_killed(tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text(
        "import anyio\n"
        "from esockd_core import Server\n"
        "from esockd_core.handlers import echo\n"
        "from esockd_core.upgrade import find_predecessor, replace_program\n"
        "async def main():\n"
        "    before = find_predecessor()\n"
        "    async with Server() as server:\n"
        "        listener = await server.open('echo', '127.0.0.1:0', echo, suspended=before is not None)\n"
        "        if before is None:\n"
        "            print(listener.port, flush=True)\n"
        "            await replace_program()\n"
        "        print('started', flush=True)\n"
        "        while before.pid and __import__('os').getppid() == before.pid:\n"
        "            await anyio.sleep(0.01)\n"
        "        await before.ready()\n"
        "        await listener.resume()\n"
        "        await before.took_over()\n"
        "        print(__import__('os').getpid(), flush=True)\n"
        "        await listener.wait_closed()\n"
        "anyio.run(main)\n"
    )
    with subprocess.Popen([sys.executable, tmp_path / "new.py"], stdout=subprocess.PIPE, text=True) as before:
        assert before.stdout is not None
        port = int(before.stdout.readline())
        assert before.stdout.readline() == "started\n"
        before.kill()
        pid = int(before.stdout.readline())
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
                client.sendall(b"hello")
                assert client.recv(10) == b"hello"
        finally:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("lost", ["removed", "x" * 300])
def test_a_folder_that_is_gone_or_may_not_be_looked_up_is_not_where_the_successor_starts(
    lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_successor, "FOLDER", str(tmp_path))
    assert _successor._folder_now() == str(tmp_path)
    monkeypatch.setattr(_successor, "FOLDER", str(tmp_path / lost))
    assert _successor._folder_now() is None
