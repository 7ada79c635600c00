"""Frames of a running instance, over its control socket."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

import anyio

from esockd_cli.top.frame import Frame, ListenerFrame, Lost, OpenConnection, RefusedClient, Wanted, key_of
from esockd_core import EsockdError, InstanceUnreachable, TopSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from esockd_cli.top.recording import Recorder
    from esockd_core import ConnectionInfo, ControlClient, InstanceSnapshot, PeerName, Refusal

MOST_SOURCES: Final = 10
MOST_REFUSALS: Final = 32
RETRY_S: Final = 1.0
SILENCE_S: Final = 3.0  # beyond the interval, until an instance is said not to answer


class Viewer(Protocol):
    """Whom frames are shown to."""

    def show(self, seen: Frame | Lost) -> None:
        """Take what was seen next."""
        ...

    def update_lists(self, frame: Frame) -> None:
        """Take other lists of the newest frame."""
        ...

    @property
    def wanted(self) -> Wanted:
        """What is wanted beyond counters."""
        ...

    @property
    def interval_s(self) -> float:
        """Seconds from one frame to the next."""
        ...


class LiveFeed:
    """Watches an instance, and goes on when it has died and returned.

    Args:
        connect: Makes a client, not connected yet.
        viewer: Whom frames are shown to.
        recorder: What writes them down; None for nobody.
    """

    def __init__(self, connect: Callable[[], ControlClient], viewer: Viewer, recorder: Recorder | None = None) -> None:
        self._connect = connect
        self._viewer = viewer
        self._recorder = recorder
        self._pressed = anyio.Event()
        self._snapshot: InstanceSnapshot | None = None
        self._fetched = Wanted()

    def notice_key(self) -> None:
        """Something else may be wanted now, or at another interval."""
        self._pressed.set()

    async def run(self, changed: Callable[[], None]) -> None:
        """Show frames until cancelled."""
        while True:
            reason = ""
            try:
                async with self._connect() as client:
                    while True:
                        await self._watch(client, changed)
            except* EsockdError as errors:
                reason = str(_first(errors))
            self._show(Lost(at=time.time(), reason=reason))
            changed()
            await anyio.sleep(RETRY_S)

    async def _watch(self, client: ControlClient, changed: Callable[[], None]) -> None:
        """Show frames until the interval is another."""
        interval_s = self._viewer.interval_s
        async with client.watch(interval_s) as snapshots, anyio.create_task_group() as tasks:
            tasks.start_soon(self._obey_keys, client, changed, tasks.cancel_scope)
            while True:
                with anyio.move_on_after(interval_s + SILENCE_S) as patience:
                    self._snapshot = await anext(snapshots)
                    self._show(await self._complete(client, self._snapshot))
                if patience.cancelled_caught:
                    self._show(Lost(at=time.time(), reason="its event loop may be blocked"))
                changed()

    async def _obey_keys(self, client: ControlClient, changed: Callable[[], None], watching: anyio.CancelScope) -> None:
        interval_s = self._viewer.interval_s
        while True:
            await self._pressed.wait()
            self._pressed = anyio.Event()
            if self._viewer.interval_s != interval_s:
                watching.cancel()
            elif self._snapshot is not None and self._viewer.wanted != self._fetched:
                self._viewer.update_lists(await self._complete(client, self._snapshot))
                changed()

    def _show(self, seen: Frame | Lost) -> None:
        if self._recorder is not None:
            self._recorder.add(seen)
        self._viewer.show(seen)

    async def _complete(self, client: ControlClient, snapshot: InstanceSnapshot) -> Frame:
        """A frame of a snapshot, with the lists that are wanted; a recording has those of every listener."""
        wanted = self._fetched = self._viewer.wanted
        listeners = []
        for each in snapshot.listeners:
            listener = ListenerFrame(status=each.status, stats=each.stats)
            if key_of(listener) == wanted.listener:
                listener = await _fetch_lists(client, listener, wanted.connections, wanted.network)
            elif self._recorder is not None:
                listener = await _fetch_lists(client, listener, 0, None)
            listeners.append(listener)
        of_workers = (
            ListenerFrame(status=each.status, stats=each.stats, worker=worker.number)
            for worker in snapshot.workers
            if worker.state != "retiring"  # another process has its number
            for each in worker.listeners
        )
        return Frame(at=snapshot.at, instance=snapshot.instance, listeners=(*listeners, *of_workers))


async def _fetch_lists(
    client: ControlClient, listener: ListenerFrame, connections: int, network: str | None
) -> ListenerFrame:
    control = client.listener(listener.status.name, listener.status.address)
    sources: tuple[TopSource, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    found: tuple[ConnectionInfo, ...] = ()
    try:
        sources = await control.get_top_sources(MOST_SOURCES)
        refusals = await control.get_refusals()
        if connections:
            found = (await control.list_connections(network, limit=connections)).connections
    except InstanceUnreachable:
        raise
    except EsockdError:  # it was closed meanwhile, or is of a version that has no such list
        pass
    return ListenerFrame(
        status=listener.status,
        stats=listener.stats,
        sources=sources,
        refusals=tuple(map(describe_refusal, refusals[-MOST_REFUSALS:])),
        connections=tuple(map(describe_connection, found)),
    )


def describe_refusal(refusal: Refusal) -> RefusedClient:
    """A refused socket as it is shown."""
    peer = "" if refusal.peer is None else describe_peer(refusal.peer)
    return RefusedClient(at=refusal.at, peer=peer, stage=str(refusal.stage), reason=refusal.reason)


def describe_connection(connection: ConnectionInfo) -> OpenConnection:
    """A connection as it is shown."""
    state = "draining" if connection.draining and connection.state == "open" else connection.state
    return OpenConnection(
        id=connection.id,
        peer=describe_peer(connection.peername),
        opened_at=connection.opened_at,
        state=state,
        via=None if connection.socket_peername == connection.peername else describe_peer(connection.socket_peername),
        tls=None if connection.tls is None else connection.tls.version,
        bytes_in=connection.bytes_in,
        bytes_out=connection.bytes_out,
    )


def describe_peer(peer: PeerName) -> str:
    """A peer as one text, an IPv6 address in brackets; clients of Unix sockets seldom have a name."""
    if isinstance(peer, str):
        return f"unix:{peer}"
    host, port = peer[0], peer[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _first(group: BaseExceptionGroup[EsockdError]) -> EsockdError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
