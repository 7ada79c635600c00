"""A listener that takes the PROXY header off each connection, around any of AnyIO's. Needs the extra ``anyio``."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import suppress
from socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING, Any, Final, TypedDict

try:
    import anyio
    from anyio.abc import ByteStream, Listener, SocketAttribute
except ModuleNotFoundError as _missing:
    raise ImportError('esockd_proxyproto.listener needs anyio: pip install "esockd-proxyproto[anyio]"') from _missing

from . import InvalidHeader, Policy, PolicyOf, ProxyProtocolError, Tolerance
from ._options import DEFAULT_LIMIT_BYTES, check_max_length, check_timeout
from ._policy import to_policy
from .streams import HEADER_TIMEOUT, HeaderTimeout, HeaderTruncated, ProxiedStream, look_for_header, receive_header

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio.abc import TaskGroup

LINES_PER_S: Final = 10  # so that a flood of bad headers does not flood the log

_logger: Final = logging.getLogger("esockd_proxyproto")


class _Options(TypedDict):
    timeout: float
    max_length: int
    verify_checksum: bool
    tolerate: Tolerance


class _PolicyFailed(Exception):
    """The policy function raised."""


class _UnwantedHeader(ProxyProtocolError):
    """The policy refuses headers, and one came."""


class _Gone(Exception):
    """The peer reset the connection before it was looked at."""


_REASONS: Final[dict[type[Exception], str]] = {
    InvalidHeader: "invalid",
    HeaderTimeout: "timeout",
    HeaderTruncated: "truncated",
    _UnwantedHeader: "rejected",
    _PolicyFailed: "policy",
}


class ProxyProtocolListener(Listener[ProxiedStream]):
    """Serves the connections of another listener once their PROXY headers are taken off.

    Each header is received in its connection's own task, under one deadline: a slow or hostile peer costs its own
    connection and nothing else. A connection that does not get through is closed and counted in ``refused``; a peer
    that closed without sending a byte is not logged.

    Args:
        listener: Gives the raw connections; for example, what `anyio.create_tcp_listener` makes.
        policy: What to do about the header: one policy for all peers, or a function of the peer, such as
            `policy_by_network` makes.
        timeout: Seconds for one whole header.
        max_length: As for `decode`.
        verify_checksum: As for `decode`.
        tolerate: As for `decode`.

    Raises:
        InvalidOption: If ``policy`` is not a policy, or ``timeout`` or ``max_length`` is out of range.

    Attributes:
        accepted: Number of connections that reached the handler.
        refused: Number of connections that did not, by reason: ``invalid``, ``timeout``, ``truncated``, ``rejected``
            (a header that the policy refuses), ``broken`` (the connection failed) and ``policy`` (the policy function
            raised).
    """

    def __init__(
        self,
        listener: Listener[ByteStream],
        policy: Policy | PolicyOf = Policy.REQUIRE,
        *,
        timeout: float = HEADER_TIMEOUT,
        max_length: int = DEFAULT_LIMIT_BYTES,
        verify_checksum: bool = True,
        tolerate: Tolerance = Tolerance.NONE,
    ) -> None:
        self.accepted: int = 0
        self.refused: Counter[str] = Counter()
        self._listener = listener
        self._policy = policy if callable(policy) else to_policy(policy)
        check_timeout(timeout)
        check_max_length(max_length)
        self._options: _Options = {
            "timeout": timeout,
            "max_length": max_length,
            "verify_checksum": verify_checksum,
            "tolerate": tolerate,
        }
        self._log_second = 0  # of the event loop's clock
        self._log_lines = 0  # in that second

    async def serve(self, handler: Callable[[ProxiedStream], Any], task_group: TaskGroup | None = None) -> None:
        """Serve connections until cancelled, as the wrapped listener does.

        Args:
            handler: Called with each connection once its header is off.
            task_group: Where connections run; by default a new one.
        """

        async def handle(stream: ByteStream) -> None:
            accepted = await self._accept(stream)
            if accepted is not None:
                await handler(accepted)

        await self._listener.serve(handle, task_group)

    async def aclose(self) -> None:
        """Close the wrapped listener."""
        await self._listener.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The attributes of the wrapped listener."""
        return self._listener.extra_attributes

    async def _accept(self, stream: ByteStream) -> ProxiedStream | None:
        """Take the header off, or close the connection and count why."""
        accepted = None
        try:
            accepted = await self._take_header(stream, self._policy_for(stream))
            self.accepted += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends this connection and no other
            self._refuse(error)
        finally:
            if accepted is None:
                with suppress(Exception):  # a stream that cannot be closed properly, such as TLS cut short, is closed
                    await anyio.aclose_forcefully(stream)
        return accepted

    def _policy_for(self, stream: ByteStream) -> Policy:
        if not callable(self._policy):
            return self._policy
        peer = stream.extra(SocketAttribute.remote_address, None)  # noqa: S610 - not Django's
        if peer is None:
            if stream.extra(SocketAttribute.family, None) in {AF_INET, AF_INET6}:  # noqa: S610 - as above
                raise _Gone("the peer is gone already")
            peer = ""
        try:
            return to_policy(self._policy(peer))
        except Exception as error:
            raise _PolicyFailed(f"no policy for {peer!r}") from error

    async def _take_header(self, stream: ByteStream, policy: Policy) -> ProxiedStream:
        if policy is Policy.SKIP:
            return ProxiedStream(stream)
        if policy is Policy.REQUIRE:
            return ProxiedStream(stream, await receive_header(stream, **self._options))
        header, unread = await look_for_header(stream, **self._options)
        if policy is Policy.REJECT and header is not None:
            raise _UnwantedHeader("this peer may not send PROXY protocol headers")
        return ProxiedStream(stream, header if policy is Policy.USE else None, unread)

    def _refuse(self, error: Exception) -> None:
        reason = next((reason for kind, reason in _REASONS.items() if isinstance(error, kind)), "broken")
        self.refused[reason] += 1
        is_port_check = isinstance(error, _Gone) or (isinstance(error, HeaderTruncated) and not error.received)
        if not is_port_check and self._may_log():
            _logger.info("refused a connection (%s): %s", reason, error, exc_info=reason == "policy" and error)

    def _may_log(self) -> bool:
        second = int(anyio.current_time())
        if second != self._log_second:
            if self._log_lines > LINES_PER_S:
                _logger.info("refused %d more connections within a second", self._log_lines - LINES_PER_S)
            self._log_second, self._log_lines = second, 0
        self._log_lines += 1
        return self._log_lines <= LINES_PER_S
