"""Sessions of DTLS, by pyOpenSSL over the datagrams of a socket."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from OpenSSL import SSL

from esockd_cli.bench.links import DatagramLink

if TYPE_CHECKING:
    from esockd_cli.bench.links import Owner

MTU: Final = 1_400
RECORD_HEADER: Final = 13  # RFC 6347 section 4.1; the length is in its last two bytes
LARGEST: Final = 16_384


class DtlsLink(DatagramLink):
    """A session."""

    __slots__ = ("_shaken", "_timer", "_tls")

    def __init__(self, owner: Owner) -> None:
        super().__init__(owner)
        context = SSL.Context(SSL.DTLS_CLIENT_METHOD)
        context.set_options(SSL.OP_NO_QUERY_MTU)
        self._tls = SSL.Connection(context)
        self._tls.set_ciphertext_mtu(MTU)
        self._tls.set_connect_state()
        self._shaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._timer: asyncio.TimerHandle | None = None

    async def shake(self) -> None:
        """Finish the handshake.

        Raises:
            ConnectionError: It fails.
        """
        try:
            self._go_on()
            await self._shaken
        except BaseException:
            self.abort()
            raise
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def send(self, payload: bytes) -> None:
        """Send a message."""
        self._tls.send(payload)
        self._flush()

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Take records."""
        del addr
        if self.is_over:
            return
        self._tls.bio_write(data)
        if not self._shaken.done():
            self._go_on()
            return
        try:
            while not self.is_over:
                self.take(self._tls.recv(65_536))
        except SSL.WantReadError:
            self._flush()
        except SSL.ZeroReturnError:
            self.owner.failed(self, "closed")
        except SSL.Error:
            self.owner.failed(self, "failed")

    def error_received(self, exc: Exception) -> None:
        """Take what the kernel tells of an earlier datagram."""
        if self._shaken.done():
            super().error_received(exc)
        else:
            self._shaken.set_exception(exc)

    def close(self) -> None:
        """Say that it ends."""
        if not self.is_over:
            try:
                self._tls.shutdown()
                self._flush()
            except SSL.Error:
                pass
        super().close()

    def _go_on(self) -> None:
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            self._flush()
            self._wait()
        except SSL.Error:
            self._shaken.set_exception(ConnectionError("the handshake of DTLS failed"))
        else:
            self._flush()
            self._shaken.set_result(None)

    def _wait(self) -> None:
        """Send the last flight again when no answer comes (RFC 6347 section 4.2.4)."""
        if self._timer is not None:
            self._timer.cancel()
        left = self._tls.DTLSv1_get_timeout()
        if left is not None:
            self._timer = asyncio.get_running_loop().call_later(max(left, 0.001), self._again)

    def _again(self) -> None:
        if not self._shaken.done():
            self._tls.DTLSv1_handle_timeout()
            self._flush()
            self._wait()

    def _flush(self) -> None:
        """Send what OpenSSL has written, each record in a datagram of its own."""
        while True:
            try:
                records = self._tls.bio_read(65_536)
            except SSL.WantReadError:
                return
            while records:
                end = RECORD_HEADER + int.from_bytes(records[RECORD_HEADER - 2 : RECORD_HEADER], "big")
                self.transport.sendto(records[:end])
                records = records[end:]
