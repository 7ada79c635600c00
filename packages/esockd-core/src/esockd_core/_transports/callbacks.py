"""What callback connections have in common on every event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esockd_core._carried import Carried
from esockd_core._connection import READ_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from esockd_core._connection import StreamConnection
    from esockd_core._handler import CallbackHandler
    from esockd_core._tls_options import TlsOptions


class CalledBack(Carried):
    """A connection served by the callbacks of one shared object: no task, no waiter."""

    __slots__ = ()

    _callbacks: CallbackHandler

    def _call(self, callback: Callable[[StreamConnection], None]) -> None:
        try:
            callback(self)
        except BaseException as error:  # noqa: BLE001
            self._callback_failed(error)

    def _callback_failed(self, error: BaseException) -> None:
        """Whatever a callback raises ends its own connection only; a subclass sees to what is to end the program."""
        self.close_nowait(self._reason_for(error))

    def request_draining(self) -> None:
        if not self.draining:
            super().request_draining()
            self._call(self._callbacks.drain_requested)

    def cancel_handler(self, reason: str) -> None:
        self.close_nowait(reason)

    async def start_tls(self, options: TlsOptions, received: bytes = b"") -> None:  # noqa: ARG002
        raise RuntimeError("start_tls() is for coroutine handlers; callbacks use start_tls_nowait()")

    async def receive(self, max_bytes: int = READ_BYTES) -> bytes:  # noqa: ARG002
        raise RuntimeError("a callback handler gets its bytes by data_received; receive() is for coroutine handlers")

    __anext__ = receive
