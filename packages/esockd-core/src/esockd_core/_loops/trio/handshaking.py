"""TLS handshakes on trio: those of the entrance, and those that begin in the middle of a connection (STARTTLS)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from anyio import BrokenResourceError, BusyResourceError, ClosedResourceError
from trio.lowlevel import wait_readable, wait_writable

from esockd_core._connection.entrance import EntranceRefused, closed_in_handshake
from esockd_core._loops.trio.sending import TrioSending
from esockd_core._stats.reasons import TLS_FAILED
from esockd_core._tls.engine import MAX_RECORD_BYTES, TlsEngine

if TYPE_CHECKING:
    from esockd_core._options.tls import TlsOptions

# With the record that the last read left unfinished this makes at most 64 KiB of plaintext.
CIPHERTEXT_BYTES: Final = 65_536 - MAX_RECORD_BYTES


class TrioHandshaking(TrioSending):
    """A stream on trio as far as it shakes hands. The class of the whole stream has the slots."""

    __slots__ = ()

    _may_be_readable: bool

    async def shake_hands(self, engine: TlsEngine, received: bytes) -> None:
        """Do the handshake, and continue over TLS.

        Args:
            engine: A fresh one.
            received: Bytes that came from the socket already.

        Raises:
            EntranceRefused: If it failed.
            trio.ClosedResourceError: If this end was closed meanwhile.
        """
        raw = self._socket
        plaintext = engine.feed(received) if received else b""
        while True:
            unsent = memoryview(engine.take())
            self._wire_bytes_out += len(unsent)
            while unsent:
                try:
                    unsent = unsent[raw.send(unsent) :]
                except BlockingIOError:
                    await wait_writable(raw)
                except OSError as error:
                    raise closed_in_handshake(engine, f"was lost ({error})") from None
            if engine.error is not None:
                raise EntranceRefused(TLS_FAILED, f"TLS handshake: {engine.why_failed()}")
            if engine.handshaken:
                break
            await wait_readable(raw)
            try:
                data = raw.recv(CIPHERTEXT_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise closed_in_handshake(engine, f"was lost ({error})") from None
            if not data:
                raise closed_in_handshake(engine, "closed")
            plaintext = engine.feed(data)
        self._engine = engine
        self._may_be_readable = True
        if plaintext:
            self.bytes_in += len(plaintext)
            self._buffer(plaintext)

    async def start_tls(self, options: TlsOptions, received: bytes = b"") -> None:
        self._require_style(receives=True)
        if self._receiver is not None:
            raise BusyResourceError("receiving from")
        unread = self._begin_tls(options, received)
        try:
            await self._go_on_with_tls(options, unread)
        except trio.Cancelled:
            self.abort()
            raise

    def start_tls_nowait(self, options: TlsOptions, received: bytes = b"") -> None:
        self._require_style(receives=False)
        unread = self._begin_tls(options, received)
        if self._reading:
            self._side.poller.remove(self._socket.fileno())
        self._reading = True  # once it is done
        self._side.nursery.start_soon(self._start_tls_for_callbacks, options, unread)

    async def _start_tls_for_callbacks(self, options: TlsOptions, unread: bytes) -> None:
        try:
            await self._go_on_with_tls(options, unread)
            if self._reading and not self._closing:
                self._poll()
        except (BrokenResourceError, ClosedResourceError):
            pass  # `connection_lost` tells
        except OSError as error:  # no memory for the poller
            self._break(error)

    def _begin_tls(self, options: TlsOptions, received: bytes) -> bytes:
        unread = self._require_plain(options, received) + self._take_all_buffered()
        self._is_shaking = True
        self._kept = bytearray()
        self._receiver = self._kept  # no other task may receive, and closing the connection wakes the handshake
        self._site.waiting.handshakes[self] = self.now()
        return unread

    async def _go_on_with_tls(self, options: TlsOptions, unread: bytes) -> None:
        try:
            await self.wait_flushed()  # what was sent in the clear
            if self._closing:
                raise self._closed_error()
            await self.shake_hands(TlsEngine(options.context), unread)
        except EntranceRefused as refused:
            self._kept = None
            self._tls_refused(refused.why)
            raise BrokenResourceError(refused.why) from None
        except trio.ClosedResourceError:
            raise self._closed_error() from None
        else:
            self._site.waiting.handshake_done(self, self.now())
            kept, self._kept = self._kept, None
            if kept and not self._closing:
                self._hand_over(bytes(kept))
            if self._eof_sent and not self._closing:
                self._finish_sending()
            if not self._closing:
                self.driver.tls_started(self)
        finally:
            self._is_shaking = False
            self._kept = self._receiver = None
            if not self._lost:
                self._note_unsent()
            self._site.waiting.forget(self)
            self._wake_senders()
