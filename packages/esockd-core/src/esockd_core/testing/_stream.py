"""A connection that is no socket: two byte arrays, and one event for whoever waits for a change of them."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
from anyio import BusyResourceError, EndOfStream, TypedAttributeLookupError, WouldBlock
from anyio.abc import SocketAttribute
from anyio.lowlevel import checkpoint

from esockd_cidr import AccessList
from esockd_core._admission import Admission
from esockd_core._carried import Carried
from esockd_core._connection import NORMAL, READ_BYTES, as_bytes, bad_max_bytes
from esockd_core._handler import CallbackHandler
from esockd_core._log import ListenerLog
from esockd_core._options import ListenerOptions
from esockd_core._service import Service
from esockd_core._stats import Counters
from esockd_core.testing._peer import MemoryPeer
from esockd_core.testing._wire import Wire, take

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from esockd_core._options import PeerName
    from esockd_core._peer_certificate import TlsInfo
    from esockd_core._tls_options import TlsOptions
    from esockd_proxyproto import ProxyHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a connection says of itself; see `Connection`."""

    peername: PeerName
    socket_peername: PeerName
    sockname: PeerName
    proxy: ProxyHeader | None
    tls: TlsInfo | None


class MemoryStream(Carried):
    """The half of a `MemoryConnection` that a handler uses."""

    def __init__(self, facts: Facts, chunk_bytes: int, window_bytes: int, options: ListenerOptions) -> None:
        admission = Admission(ListenerOptions(), AccessList(), Counters(), ListenerLog("memory"))
        admission.is_inet = False  # a Unix client has no address
        super().__init__(Service("memory", CallbackHandler(), options, admission, None))
        self._facts = facts
        self.socket_peername = facts.socket_peername
        self.sockname = facts.sockname
        self._chunk_bytes = chunk_bytes
        self._window_bytes = window_bytes
        self._wire = Wire(self._look_at_wire)
        self._scope: anyio.CancelScope | None = None
        self._handler_running = False
        self._receiving = False
        self.peer = MemoryPeer(self, self._wire, options.read_buffer_bytes)
        admission.admits(self)  # it is over, whatever the options say
        self._service.started(self)

    # Receiving

    async def __anext__(self) -> bytes:
        try:
            return await self.receive()
        except EndOfStream:
            raise StopAsyncIteration from None

    async def receive(self, max_bytes: int = READ_BYTES) -> bytes:
        if max_bytes < 1:
            raise bad_max_bytes(max_bytes)
        if self._receiving:
            raise BusyResourceError("receiving from")
        self._receiving = True
        try:
            await checkpoint()
            while True:
                if self._wire.incoming:
                    return self._take(max_bytes)
                self._look_at_wire()
                if self._closing:
                    raise self._closed_error()
                if self._wire.peer_finished:
                    self._eof = True
                    raise EndOfStream
                await self._wire.wait()
        finally:
            self._receiving = False

    def _take(self, max_bytes: int) -> bytes:
        data = take(self._wire.incoming, min(max_bytes, self._chunk_bytes))
        self.bytes_in += len(data)
        self._wire.wake()  # a reset that came behind this is not told with it
        return data

    def pause_reading(self) -> None:
        raise RuntimeError("a coroutine handler pauses reading by not calling receive()")

    resume_reading = pause_reading

    # Sending

    async def send(self, item: bytes) -> None:
        await checkpoint()
        await self._wait_writable()  # for what a cancelled send left, or another task's
        self._write(item)
        await self._wait_writable()

    async def _wait_writable(self) -> None:
        while self._is_write_paused():
            await self._wire.wait()
            if self._lost:
                raise self._closed_error()

    def _is_write_paused(self) -> bool:
        return self.unsent_bytes() > self._service.options.write_buffer_bytes

    def send_nowait(self, data: bytes) -> None:
        if self._is_write_paused() and not self._closing:
            data = as_bytes(data)
            if self.unsent_bytes() + len(data) > self._service.options.write_limit_bytes:
                raise WouldBlock
        self._write(data)

    def _write(self, data: bytes) -> None:
        if self._wire.peer_reset and not self._closing:
            self._break()
        if self._closing or self._eof_sent:
            raise self._closed_error()
        data = as_bytes(data)
        self.bytes_out += len(data)
        if self._wire.peer_gone and data:
            self._break()  # which the next one is told: this one was on its way when the reset came back
            return
        self._hand_over(data)

    def _hand_over(self, data: bytes) -> None:
        self._wire.outgoing += data
        self._wire.change()

    def _finish_sending(self) -> None:
        self._eof_sent = self._wire.finished = True
        self._wire.change()

    async def start_tls(self, options: TlsOptions, received: bytes = b"") -> None:  # noqa: ARG002
        """Refuse: a connection in memory speaks no TLS. Test STARTTLS with a listener on loopback.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError("a MemoryConnection speaks no TLS: test start_tls() with a listener on loopback")

    # Ending

    @property
    def reason(self) -> str | None:
        """See `MemoryConnection`."""
        return next(iter(self._service.counters.shutdown_counts), None)

    def _begin_close(self) -> None:
        self._wire.incoming.clear()  # it reads on, so that the kernel does not answer what comes with a reset
        self._service.closing[self] = (self.unsent_bytes(), anyio.current_time())
        self._finish_sending()

    def _look_at_wire(self) -> None:
        wire = self._wire
        if wire.peer_reset and not wire.incoming:  # what came before the reset can still be received
            self._break()
        elif self._closing and wire.peer_finished and not self.unsent_bytes():
            self.abort_socket()

    def _break(self) -> None:
        if not self._lost:
            self._error = self._error or ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            self.abort_socket()

    def abort_socket(self) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self._service.blocked.pop(self, None)
        self._service.closing.pop(self, None)
        wire = self._wire
        wire.finished = True
        wire.reset = bool(wire.incoming)
        del wire.outgoing[0 if wire.reset else self._window_bytes :]
        wire.incoming.clear()
        wire.change()
        if not self._handler_running:
            self._service.stopped(self, self._reason or NORMAL)

    def cancel_handler(self, reason: str) -> None:
        if self._scope is not None:
            self._reason = self._reason or reason
            self._scope.cancel()

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

    def handler_stack(self) -> str:
        return "a task of the test's own"

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The socket attributes of AnyIO's own streams that need no socket."""
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
