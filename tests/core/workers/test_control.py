"""One `ListenerControl` over several workers: it sees all of them, and changes all of them or none."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING, Any, Literal

import anyio
import pytest
from tests.core.tls_clients import AUTHORITY, client_context
from tests.core.workers.conftest import ECHO, Served, ask, ask_all, eventually
from tests.ports import steady_address

from esockd_core import (
    AddressInUse,
    AlreadyOpen,
    ConnectionInfo,
    ControlClient,
    ControlError,
    ControlServer,
    InvalidAddress,
    InvalidOption,
    ListenerClosed,
    ListenerOptions,
    TlsOptions,
    open_listener,
)
from esockd_core._remote.remote_listener import RemoteListener
from esockd_core.workers import WorkerListener, Workers
from esockd_ratelimit import TokenBucket

if TYPE_CHECKING:
    from pathlib import Path

    from tests.core.workers.conftest import Serve

    from esockd_core import OptionPlan

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]


async def pages(served: Served, limit: int) -> list[ConnectionInfo]:
    """All connections, page by page."""
    found: list[ConnectionInfo] = []
    after: int | None = 0
    while after is not None:
        page = await served.listener.list_connections(after=after, limit=limit)
        assert len(page.connections) <= limit
        found += page.connections
        after = page.after
    return found


async def test_the_connections_of_all_workers_are_listed_found_and_killed(serve: Serve) -> None:
    async with serve() as served:
        clients = [await served.connect() for _ in range(30)]
        assert await ask_all(clients) == [b"hello"] * 30

        found = await pages(served, 7)

        assert len({each.id for each in found}) == 30
        assert {each.peername for each in found} == {client.getsockname() for client in clients}
        victim = found[17]
        assert await served.listener.find_connection(victim.id) is not None
        assert await served.listener.kill_connection(victim.id)
        await served.until(lambda stats: stats.shutdown_counts.get("killed") == 1)
        assert not await served.listener.kill_connection(victim.id)
        assert await served.listener.kill_connections("127.0.0.0/8") == 29
        await served.until(lambda stats: stats.shutdown_counts.get("killed") == 30)


async def test_rules_and_options_reach_every_worker_and_those_that_come_later(serve: Serve) -> None:
    async with serve() as served:
        await served.listener.deny("127.0.0.9")
        await served.listener.set_options(max_connections=500, idle_timeout=60.0)
        assert await ask_all([await served.connect("127.0.0.9") for _ in range(20)]) == [b""] * 20

        await served.workers.restart()

        assert await ask_all([await served.connect("127.0.0.9") for _ in range(20)]) == [b""] * 20
        options = await served.listener.get_options()
        assert (options["max_connections"], options["idle_timeout"]) == (500, 60.0)
        assert options["access_rules"] == ("deny 127.0.0.9",)
        assert (await served.listener.get_stats()).closed_forbidden == 40
        refusals = await served.listener.get_refusals()
        assert {each.reason for each in refusals} == {"access rule 0: deny 127.0.0.9"}
        await served.listener.remove_rule("deny 127.0.0.9")
        assert await ask(await served.connect("127.0.0.9")) == b"hello"


async def test_a_change_that_is_not_valid_changes_nothing_anywhere(serve: Serve) -> None:
    async with serve() as served:
        pids = served.pids()
        for wrong in (
            served.listener.set_options(max_connections=0),
            served.listener.set_options(limiter=TokenBucket(1)),
            served.listener.set_options(unix={"mode": 0o600}),
            served.listener.allow("10.0.0.1/33"),
            served.listener.remove_rule("deny 10.0.0.1"),
            served.listener.insert_rule(1, "deny 10.0.0.1"),
            served.listener.set_handler("no_such_module:handle"),
            served.listener.set_tls(),
            served.listener.get_top_sources(0),
            served.listener.list_connections(limit=0),
            served.listener.explain("nowhere"),
            served.listener.reopen(),
        ):
            with pytest.raises(InvalidOption):
                await wrong
        with pytest.raises(InvalidOption, match="listener is 'echo': workers keep the sockets"):
            await served.listener.reopen()
        with pytest.raises(InvalidOption, match="new listening sockets"):
            await served.listener.set_options(tcp={"reuse_port": True}, reopen=True)
        assert (await served.listener.get_access_rules()).rules == ()
        assert (await served.listener.get_options())["max_connections"] == 1024
        assert await ask(await served.connect()) == b"hello"
        assert served.pids() == pids


async def test_a_change_that_one_worker_refuses_is_undone_in_the_others(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first worker can import it, and the second cannot.
    (tmp_path / "once.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'made')!r}).mkdir()\n"
        f"from {ECHO.partition(':')[0]} import other\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    async with serve() as served:
        pids = served.pids()
        with pytest.raises(InvalidOption, match="FileExistsError"):
            await served.listener.set_handler("once:other")

        assert served.pids() == pids
        assert await ask_all([await served.connect() for _ in range(20)]) == [b"hello"] * 20
        assert (await served.listener.get_status()).handler == ECHO


async def test_a_change_that_a_worker_does_not_answer_is_undone_in_the_others(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_options = RemoteListener.set_options
    asked: list[RemoteListener] = []

    async def ask_the_last_one_briefly(control: RemoteListener, **changes: Any) -> OptionPlan:
        asked.append(control)
        with anyio.fail_after(0.3 if len(asked) == 2 else None):
            return await set_options(control, **changes)

    monkeypatch.setattr(RemoteListener, "set_options", ask_the_last_one_briefly)
    async with serve(stuck_timeout=None, options={"max_connections": 7}) as served:
        victim = served.workers._supervisor.live()[-1].pid
        os.kill(victim, signal.SIGSTOP)
        with pytest.raises(ControlError, match="does not answer: nothing was changed"):
            await served.listener.set_options(max_connections=5)
        await eventually(lambda: victim not in served.pids())
        os.kill(victim, signal.SIGKILL)

        clients = [await served.connect() for _ in range(20)]
        assert (await ask_all(clients)).count(b"hello") == 7
        assert (await served.listener.get_options())["max_connections"] == 7


async def test_another_handler_is_imported_by_every_worker(serve: Serve) -> None:
    async with serve() as served:
        await served.listener.set_handler("tests.core.workers.programs:other")
        assert await ask_all([await served.connect() for _ in range(20)]) == [b"other"] * 20
        assert (await served.listener.get_status()).handler == "tests.core.workers.programs:other"


async def test_a_suspended_listener_leaves_its_clients_in_the_queue_even_over_a_restart(serve: Serve) -> None:
    async with serve() as served:
        await served.listener.suspend()
        clients = [await served.connect() for _ in range(20)]
        await served.workers.restart()
        stats = await served.listener.get_stats()
        assert (stats.accepted, stats.accept_queue_length) == (0, 20)
        assert (await served.listener.get_status()).state == "suspended"

        await served.listener.resume()

        assert await ask_all(clients) == [b"hello"] * 20


async def connect_until_refused(served: Served) -> None:
    """Connect again and again: the descriptors of a worker are gone when its process is."""
    with anyio.fail_after(60):
        while True:
            (await served.connect()).close()
            await anyio.sleep(0.01)


async def test_drain_serves_who_is_queued_lets_handlers_finish_and_closes_everywhere(serve: Serve) -> None:
    async with serve(address=steady_address(), options={"shutdown_timeout": 60.0}) as served:
        clients = [await served.connect() for _ in range(20)]
        assert await ask_all(clients) == [b"hello"] * 20
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(served.listener.drain)
            await anyio.wait_all_tasks_blocked()
            for client in clients:
                client.close()
        assert (await served.listener.get_status()).state == "closed"
        stats = await served.listener.get_stats()
        assert (stats.accepted, stats.current_connections) == (20, 0)
        await served.workers.wait_closed()
        with pytest.raises(ListenerClosed):
            await served.workers.restart()
        with pytest.raises(ListenerClosed):
            await served.listener.suspend()
        with pytest.raises(ConnectionRefusedError):
            await connect_until_refused(served)


async def test_the_control_socket_of_the_parent_speaks_for_all_workers(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serve() as served, ControlServer(served.workers, "edge", path=path), ControlClient(path) as client:
        clients = [await served.connect() for _ in range(20)]
        assert await ask_all(clients) == [b"hello"] * 20
        assert (await client.get_instance()).workers == 2
        echo = client.listener("echo")
        assert (await echo.get_stats()).current_connections == 20
        async with client.watch() as snapshots:
            async for snapshot in snapshots:
                assert {each.pid for each in snapshot.workers} == served.pids()
                assert sum(each.current_connections for each in snapshot.workers) == 20
                break
        assert (await echo.get_top_sources())[0].attempts == 20
        acceptors = await echo.get_acceptors()
        assert [each.id for each in acceptors] == [0, 1]
        assert await echo.kill_connections("all") == 20


async def test_unix_sockets_are_shared_and_removed_at_the_end(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "echo.sock"
    async with serve(address=f"unix:{path}", options={"max_connections": 5}):
        answers: list[bytes] = []
        all_answered = anyio.Event()

        async def come() -> None:
            async with await anyio.connect_unix(path) as client:
                try:
                    await client.send(b"hello")
                    answers.append(await client.receive())
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    answers.append(b"")
                if len(answers) == 12:
                    all_answered.set()
                await all_answered.wait()  # and keep its place so long

        async with anyio.create_task_group() as task_group:
            for _ in range(12):
                task_group.start_soon(come)
        assert answers.count(b"hello") == 5
    assert not path.exists()


async def test_tls_options_cross_to_the_workers_and_are_read_anew_by_each(
    loop: Literal["asyncio", "uvloop", "trio"], tmp_path: Path
) -> None:
    certfile = tmp_path / "server.pem"
    AUTHORITY.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certfile)
    options = ListenerOptions(tls=TlsOptions(certfile=certfile), shutdown_timeout=0.0)
    listener = WorkerListener(
        name="echo", address="tls://127.0.0.1:0", handler="esockd_core.handlers:echo", options=options
    )
    with anyio.fail_after(60):
        async with Workers([listener], count=2, loop=loop) as workers:
            (control,) = workers.listeners()
            await control.set_tls()
            port = (await control.get_status()).port or 0
            async with await anyio.connect_tcp(
                "127.0.0.1", port, tls=True, ssl_context=client_context(), tls_hostname="localhost"
            ) as client:
                await client.send(b"hello")
                assert await client.receive() == b"hello"


async def test_what_cannot_be_served_by_workers_is_refused_before_anything_is_opened(
    loop: Literal["asyncio", "uvloop", "trio"],
) -> None:
    def listener(address: str = "127.0.0.1:0", **changes: Any) -> WorkerListener:
        return WorkerListener(name="a", address=address, handler=ECHO, options=ListenerOptions(**changes))

    for wrong, error in (
        ([listener(limiter=TokenBucket(1))], InvalidOption),
        ([listener(load_hook=lambda _: True)], InvalidOption),
        ([listener(max_conn_rate="1/s burst 1"), listener()], AlreadyOpen),
        ([listener(address="udp://127.0.0.1:0")], InvalidOption),
        ([listener(address="nowhere:1:2")], InvalidAddress),
    ):
        with pytest.raises(error):
            async with Workers(wrong, count=1, loop=loop):
                pytest.fail("it started")
    for arguments in ({"count": 0}, {"count": 65}, {"count": True}, {"loop": "curio"}, {"start_timeout": 0}):
        with pytest.raises(InvalidOption):
            Workers([listener()], **arguments)


async def test_a_socket_object_is_refused_for_workers_and_its_descriptor_is_proposed() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as bound,
        pytest.raises(InvalidOption, match=f"Give its descriptor: fd:{bound.fileno()}"),
    ):
        async with Workers([WorkerListener(name="a", address=bound, handler=ECHO)], count=1):
            pytest.fail("it started")


async def test_an_address_that_somebody_else_has_is_in_use_for_workers_too(
    loop: Literal["asyncio", "uvloop", "trio"],
) -> None:
    async def handle(_: object) -> None: ...

    async with open_listener("other", "127.0.0.1:0", handle, tcp={"reuse_port": True}) as other:
        listener = WorkerListener(name="echo", address=f"127.0.0.1:{other.port}", handler=ECHO)
        with pytest.raises(AddressInUse):
            async with Workers([listener], count=2, loop=loop):
                pytest.fail("it started")
