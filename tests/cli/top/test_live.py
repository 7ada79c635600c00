"""Frames of a running instance, which may die and return."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast

import anyio
import pytest
from tests.patience import PATIENCE_S

from esockd_cli.top import live
from esockd_cli.top.frame import Frame, ListenerFrame, ListenerKey, Lost, Wanted
from esockd_cli.top.live import LiveFeed, describe_connection, describe_peer, describe_refusal
from esockd_cli.top.recording import Recorder, Recording
from esockd_core import ConnectionInfo, ControlClient, ControlServer, PeerName, Refusal, Refused, Server, TlsInfo
from esockd_core.handlers import echo
from esockd_core.workers import WorkerListener, Workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from esockd_core import Listener, ListenerControl

pytestmark = pytest.mark.anyio

ECHO = ListenerKey("echo", "127.0.0.1:0")


class Viewer:
    """Keeps what it is shown."""

    def __init__(self, wanted: Wanted | None = None) -> None:
        self.wanted = wanted or Wanted()
        self.interval_s = 0.1
        self.seen: list[Frame | Lost] = []
        self.updated: list[Frame] = []
        self._news = anyio.Event()

    def show(self, seen: Frame | Lost) -> None:
        self.seen.append(seen)

    def update_lists(self, frame: Frame) -> None:
        self.updated.append(frame)

    def changed(self) -> None:
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        with anyio.fail_after(PATIENCE_S):
            while not condition():
                self._news = anyio.Event()
                await self._news.wait()

    @property
    def newest(self) -> Frame:
        assert isinstance(self.seen[-1], Frame), self.seen[-1]
        return self.seen[-1]


@pytest.fixture
def path() -> Iterator[Path]:
    """Where the control socket is: paths of Unix sockets have to be short."""
    with TemporaryDirectory() as folder:
        yield Path(folder, "edge.sock")


@asynccontextmanager
async def instance(path: Path) -> AsyncIterator[Listener]:
    async with Server() as server, ControlServer(server, "edge", path=path):
        yield await server.open("echo", "127.0.0.1:0", echo, access_rules=["deny 127.0.0.2"])


@asynccontextmanager
async def watch(path: Path, viewer: Viewer, recorder: Recorder | None = None) -> AsyncIterator[LiveFeed]:
    feed = LiveFeed(partial(ControlClient, path, read_only=True), viewer, recorder)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed.run, viewer.changed)
        yield feed
        tasks.cancel_scope.cancel()


def connect(listener: Listener, source: str = "127.0.0.1") -> socket.socket:
    assert listener.port is not None
    return socket.create_connection(("127.0.0.1", listener.port), PATIENCE_S, source_address=(source, 0))


def counted(viewer: Viewer) -> tuple[int, int]:
    """Connections and refusals in the newest frame."""
    stats = viewer.newest.listeners[0].stats
    return stats.current_connections, stats.refused


async def test_frames_come_each_interval_with_every_counter(path: Path) -> None:
    viewer = Viewer()
    async with instance(path) as listener, watch(path, viewer):
        with connect(listener), connect(listener, "127.0.0.2"):
            await viewer.until(lambda: bool(viewer.seen) and counted(viewer) == (1, 1))
        assert viewer.newest.instance.name == "edge"
        assert viewer.newest.listeners[0].status.addresses == (f"127.0.0.1:{listener.port}",)
        assert viewer.newest.listeners[0].sources == ()


async def test_a_frame_has_the_sums_of_all_workers_and_then_each_of_them(path: Path) -> None:
    viewer = Viewer()
    given = WorkerListener(name="echo", address="127.0.0.1:0", handler="esockd_core.handlers:echo")
    async with Workers([given], count=2) as workers, ControlServer(workers, "edge", path=path), watch(path, viewer):
        (control,) = workers.listeners()
        port = (await control.get_status()).port or 0
        clients = [socket.create_connection(("127.0.0.1", port), PATIENCE_S) for _ in range(8)]

        def all_are_counted() -> bool:
            frame = viewer.newest if viewer.seen and isinstance(viewer.seen[-1], Frame) else None
            return frame is not None and [
                sum(each.stats.accepted for each in frame.listeners if (each.worker is None) == is_sum)
                for is_sum in (True, False)
            ] == [8, 8]

        await viewer.until(all_are_counted)
        assert viewer.newest.instance.workers == 2
        assert [each.worker for each in viewer.newest.listeners] == [None, 0, 1]
        for client in clients:
            client.close()


async def test_lists_come_for_the_listener_that_they_are_wanted_of(path: Path) -> None:
    viewer = Viewer(Wanted(ECHO, 10))
    async with instance(path) as listener, watch(path, viewer):
        with connect(listener) as client, connect(listener, "127.0.0.2"):
            await viewer.until(lambda: bool(viewer.seen) and counted(viewer) == (1, 1))
            await viewer.until(lambda: len(viewer.newest.listeners[0].connections) == 1)
            seen = viewer.newest.listeners[0]
            assert {each.source for each in seen.sources} == {"127.0.0.1", "127.0.0.2"}
            assert [each.stage for each in seen.refusals] == ["closed_forbidden"]
            assert seen.refusals[0].peer.startswith("127.0.0.2:")
            host, port = client.getsockname()
            assert seen.connections[0].peer == f"{host}:{port}"


async def test_connections_of_a_network_are_asked_for_at_the_listener(path: Path) -> None:
    viewer = Viewer(Wanted(ECHO, 10, "127.0.0.3/32"))
    async with instance(path) as listener, watch(path, viewer):
        with connect(listener), connect(listener, "127.0.0.3"):
            await viewer.until(lambda: bool(viewer.seen) and counted(viewer) == (2, 0))
            await viewer.until(lambda: len(viewer.newest.listeners[0].connections) == 1)
            assert viewer.newest.listeners[0].connections[0].peer.startswith("127.0.0.3:")


async def test_a_key_that_wants_lists_has_them_before_the_next_interval(path: Path) -> None:
    viewer = Viewer()
    viewer.interval_s = 600.0
    async with instance(path) as listener, watch(path, viewer) as feed:
        await viewer.until(lambda: bool(viewer.seen))
        with connect(listener):
            feed.notice_key()
            viewer.wanted = Wanted(ECHO, 10)
            feed.notice_key()
            await viewer.until(lambda: bool(viewer.updated))
        assert len(viewer.seen) == 1
        assert viewer.updated[0].listeners[0].stats == viewer.newest.listeners[0].stats


async def test_another_interval_holds_at_once(path: Path) -> None:
    viewer = Viewer()
    viewer.interval_s = 600.0
    async with instance(path), watch(path, viewer) as feed:
        await viewer.until(lambda: len(viewer.seen) == 1)
        viewer.interval_s = 0.1
        feed.notice_key()
        await viewer.until(lambda: len(viewer.seen) >= 4)


async def test_an_instance_that_ends_is_lost_and_is_seen_again_when_it_returns(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "RETRY_S", 0.05)
    viewer = Viewer()
    async with watch(path, viewer):
        await viewer.until(lambda: bool(viewer.seen))
        assert isinstance(viewer.seen[-1], Lost)
        assert f"no program has the control socket {path}" in viewer.seen[-1].reason
        for _ in range(2):
            async with instance(path):
                await viewer.until(lambda: isinstance(viewer.seen[-1], Frame))
            await viewer.until(lambda: isinstance(viewer.seen[-1], Lost))


class Silent:
    """A source of listeners that never answers again once it is told to."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.is_silent = False

    def listeners(self) -> Sequence[ListenerControl]:
        return (cast("ListenerControl", self),)

    async def get_status(self) -> object:
        return await self.listener.get_status()

    async def get_stats(self) -> object:
        if self.is_silent:
            await anyio.sleep_forever()
        return await self.listener.get_stats()


async def test_an_instance_that_says_nothing_is_said_not_to_answer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SILENCE_S", 0.05)
    viewer = Viewer()
    async with Server() as server:
        source = Silent(await server.open("echo", "127.0.0.1:0", echo))
        async with ControlServer(source, "edge", path=path), watch(path, viewer):
            await viewer.until(lambda: bool(viewer.seen) and isinstance(viewer.seen[-1], Frame))
            source.is_silent = True
            await viewer.until(lambda: isinstance(viewer.seen[-1], Lost))
            assert cast("Lost", viewer.seen[-1]).reason == "its event loop may be blocked"


async def test_a_listener_that_is_closed_meanwhile_has_no_lists(path: Path) -> None:
    async with instance(path), ControlClient(path) as client, client.watch() as snapshots:
        snapshot = await anext(snapshots)
        frame = ListenerFrame(status=snapshot.listeners[0].status, stats=snapshot.listeners[0].stats)
        gone = ListenerFrame(
            status=type(frame.status).from_dict({**frame.status.as_dict(), "name": "gone"}), stats=frame.stats
        )
        assert await live._fetch_lists(client, gone, 10, None) == gone


async def test_a_recording_has_the_lists_of_every_listener(path: Path, tmp_path: Path) -> None:
    viewer, recorder = Viewer(), Recorder(tmp_path / "incident")
    async with instance(path) as listener, watch(path, viewer, recorder):
        with connect(listener, "127.0.0.2"):
            await viewer.until(lambda: bool(viewer.seen) and counted(viewer) == (0, 1))
            await viewer.until(lambda: bool(viewer.newest.listeners[0].refusals))
    recorder.close()
    with Recording(tmp_path / "incident") as recording:
        assert [recording.moment(index) for index in range(len(recording))] == viewer.seen


@pytest.mark.parametrize(
    ("peer", "text"),
    [
        (("192.0.2.1", 5), "192.0.2.1:5"),
        (("fe80::1%eth0", 5), "[fe80::1%eth0]:5"),
        ("", "unix:"),
        ("/run/app", "unix:/run/app"),
    ],
)
def test_a_peer_is_one_text(peer: PeerName, text: str) -> None:
    assert describe_peer(peer) == text


def test_a_peer_that_was_gone_has_no_address() -> None:
    refusal = Refusal(None, Refused.EARLY, "gone", 7.0)
    assert describe_refusal(refusal).peer == ""
    assert describe_refusal(refusal).stage == "closed_early"


@pytest.mark.parametrize(
    ("draining", "state", "shown"),
    [(False, "open", "open"), (True, "open", "draining"), (True, "closing", "closing")],
)
def test_a_connection_has_one_state(draining: bool, state: str, shown: str) -> None:
    tls = TlsInfo(version="TLSv1.3", cipher=None, server_name=None, alpn=None, peer_certificate=None)
    described = describe_connection(
        ConnectionInfo(
            id=1,
            peername=("2001:db8::1", 5),
            socket_peername=("10.0.0.1", 6),
            sockname=("10.0.0.2", 7),
            state=state,  # type: ignore[arg-type]
            opened_at=1.0,
            bytes_in=2,
            bytes_out=3,
            draining=draining,
            tls=tls,
        )
    )
    assert described.state == shown
    assert (described.peer, described.via, described.tls) == ("[2001:db8::1]:5", "10.0.0.1:6", "TLSv1.3")
