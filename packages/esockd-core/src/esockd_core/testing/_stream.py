"""A connection without a socket: two byte arrays, and one event for tasks that wait until they change."""

from __future__ import annotations

import errno
import os
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
from anyio import TypedAttributeLookupError
from anyio.abc import SocketAttribute
from anyio.lowlevel import checkpoint

from esockd_cidr import AccessList
from esockd_core._admission.admission import Admission
from esockd_core._connection.callback_driver import CallbackDriver
from esockd_core._connection.driver import Driver
from esockd_core._connection.handler import CallbackHandler
from esockd_core._connection.site import Site
from esockd_core._connection.stream import StreamBase
from esockd_core._options.listener import ListenerOptions
from esockd_core._stats.counters import Counters
from esockd_core._stats.log import ListenerLog
from esockd_core._stats.reasons import NORMAL
from esockd_core.testing._peer import MemoryPeer
from esockd_core.testing._wire import Wire, take

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from esockd_core._options.listener import PeerName
    from esockd_core._options.tls import TlsOptions
    from esockd_core._tls.facts import TlsInfo
    from esockd_proxyproto import ProxyHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The attributes of a connection that a test gives; see `Connection`."""

    peername: PeerName
    socket_peername: PeerName
    sockname: PeerName
    proxy: ProxyHeader | None
    tls: TlsInfo | None


class CoroutineDriver(Driver["MemoryStream"]):
    """The driver of a coroutine handler, which the test's own task runs."""

    __slots__ = ()

    receives = True

    def cancel(self, connection: MemoryStream, reason: str) -> None:
        if connection.scope is not None:
            connection.note_reason(reason)
            connection.scope.cancel()

    def lost(self, connection: MemoryStream, broke: bool) -> None:  # noqa: ARG002
        if not connection.handler_running:
            connection.ended(NORMAL)

    def stack(self, connection: MemoryStream) -> str:  # noqa: ARG002
        return "a task of the test's own"


class MemoryCallbackDriver(CallbackDriver[StreamBase]):
    """The driver of a callback handler, which is told of the end when `serve` gets to it."""

    __slots__ = ("_broke",)

    def __init__(self, callbacks: CallbackHandler) -> None:
        super().__init__(callbacks, _raise, copy_context())
        self._broke = False

    def lost(self, connection: StreamBase, broke: bool) -> None:  # noqa: ARG002
        self._broke = broke

    def tell_lost(self, connection: StreamBase) -> None:
        """Tell the callbacks that the connection has ended."""
        super().lost(connection, self._broke)


def _raise(error: BaseException) -> None:
    raise error


class MemoryStream(StreamBase):
    """The half of a `MemoryConnection` that a handler uses."""

    def __init__(self, facts: Facts, chunk_bytes: int, window_bytes: int, options: ListenerOptions) -> None:
        counters, log = Counters(), ListenerLog("memory")
        site = Site("memory", CallbackHandler(), options, counters, log)
        admission = Admission(ListenerOptions(), AccessList(), site.waiting, counters, log)
        admission.is_inet = False  # a Unix client has no address
        site.judge, site.registry.release = admission, admission.release
        super().__init__(site, CoroutineDriver())
        self._facts = facts
        self.socket_peername = facts.socket_peername
        self.sockname = facts.sockname
        self._chunk_bytes = chunk_bytes
        self._window_bytes = window_bytes
        self._wire = Wire(self._look_at_wire)
        self._reading = True
        self._resets = False
        self.scope: anyio.CancelScope | None = None
        self.handler_running = False
        self.peer = MemoryPeer(self, self._wire, options.read_buffer_bytes)
        admission.admits(self, facts.socket_peername)  # it is over, whatever the options say
        site.registry.add(self)

    # Receiving

    def _has_input(self) -> bool:
        return self._chunk is not None or bool(self._wire.incoming)

    def _take(self, max_bytes: int) -> bytes | None:
        at_most = min(max_bytes, self._chunk_bytes)
        if self._chunk is not None:
            return self._take_buffered(at_most)
        return self._read(at_most)

    def _fill(self) -> bool:
        data = self._read(self._chunk_bytes)
        if data is None:
            return False
        self._buffer(data)
        return True

    def _read(self, at_most: int) -> bytes | None:
        if self._wire.incoming:
            data = take(self._wire.incoming, at_most)
            self.bytes_in += len(data)
            self._wire.wake()  # a reset that came behind this is not told with it
            return data
        self._look_at_wire()
        self._eof = self._eof or self._wire.peer_finished
        return None

    async def _input_waiter(self) -> None:
        await self._wire.wait()

    def _wake_receiver(self) -> None:
        self._wire.wake()

    def _pause_input(self) -> None:
        self._reading = False

    def _resume_input(self) -> None:
        self._reading = True
        self._wire.change()

    # Sending

    def _hand_over(self, data: bytes) -> None:
        if self._wire.peer_reset:
            self._break()
            raise self._closed_error()
        if self._wire.peer_gone and data:
            self._break()  # which the next one is told: this one was on its way when the reset came back
            return
        self._wire.outgoing += data
        self._wire.change()

    def _note_unsent(self) -> None:
        self._pause_writing(paused=self.unsent_bytes() > self._site.options.write_buffer_bytes)

    def _finish_sending(self) -> None:
        self._wire.finished = True
        self._wire.change()

    async def _wait_room(self) -> None:
        await self._wire.wait()

    def _wake_senders(self) -> None:
        self._wire.wake()

    def _may_be_cancelled(self) -> bool:
        return True

    async def _checkpoint(self) -> None:
        await checkpoint()

    # TLS

    def _has_tls(self) -> bool:
        return False

    def _own_tls(self) -> TlsInfo | None:
        return self._facts.tls

    async def start_tls(self, options: TlsOptions, received: bytes = b"") -> None:  # noqa: ARG002
        """Refuse, because a connection in memory has no TLS. Test STARTTLS with a listener on loopback.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError("a MemoryConnection speaks no TLS: test start_tls() with a listener on loopback")

    # Ending

    @property
    def reason(self) -> str | None:
        """See `MemoryConnection`."""
        return next(iter(self._site.counters.shutdown_counts), None)

    def _begin_close(self) -> None:
        self._wire.incoming.clear()  # it reads on, so that the kernel does not answer what comes with a reset
        self._site.watch.closing[self] = (-1, self.now())
        self._eof_sent = True
        self._finish_sending()

    def _look_at_wire(self) -> None:
        wire = self._wire
        self._note_unsent()
        if wire.peer_reset and not wire.incoming:  # what came before the reset can still be received
            self._break()
        elif self._closing and wire.peer_finished and not self.unsent_bytes():
            self.close_socket()

    def _break(self) -> None:
        if not self._lost:
            self.fail(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))

    def _reset_at_close(self) -> None:
        self._resets = True

    def close_socket(self) -> None:
        if self._lost:
            return
        broke = self._error is not None and not self._closing
        self._lost = self._closing = True
        self._site.watch.socket_lost(self)
        wire = self._wire
        wire.finished = True
        wire.reset = self._resets or bool(wire.incoming)
        del wire.outgoing[0 if wire.reset else self._window_bytes :]
        wire.incoming.clear()
        self._write_paused = False
        wire.change()
        self.driver.lost(self, broke)

    # Looking at it

    @property
    def peername(self) -> PeerName:
        return self._facts.peername

    @property
    def proxy(self) -> ProxyHeader | None:
        return self._facts.proxy

    @property
    def tls(self) -> TlsInfo | None:
        return self._facts.tls

    def unsent_bytes(self) -> int:
        return max(0, len(self._wire.outgoing) - self._window_bytes)

    def undelivered_bytes(self) -> int:
        return self.unsent_bytes()

    def has_unread_input(self) -> bool:
        return bool(self._wire.incoming)

    def now(self) -> float:
        return anyio.current_time()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The socket attributes of AnyIO's streams that need no socket."""
        attributes: dict[Any, Callable[[], Any]] = {
            SocketAttribute.local_address: lambda: self.sockname,
            SocketAttribute.remote_address: lambda: self.peername,
        }
        if isinstance(self.sockname, tuple):
            attributes[SocketAttribute.local_port] = lambda: self.sockname[1]
        if isinstance(self.peername, tuple):
            attributes[SocketAttribute.remote_port] = lambda: self.peername[1]
        return attributes

    def _raw_socket(self) -> socket.socket:
        raise TypedAttributeLookupError("a MemoryConnection has no socket")
