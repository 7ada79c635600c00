"""A listener that takes the PROXY header off each connection, around any of AnyIO's. Needs the extra ``anyio``."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, TypedDict

import anyio
from anyio.abc import ByteStream, Listener, SocketAttribute

from . import InvalidHeader, Policy, PolicyOf, ProxyProtocolError, Tolerance
from ._options import DEFAULT_LIMIT_BYTES, check_max_length
from .streams import (
    HEADER_TIMEOUT_S,
    HeaderTimeoutError,
    HeaderTruncatedError,
    ProxiedStream,
    look_for_header,
    receive_header,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio.abc import TaskGroup

_logger: Final = logging.getLogger("esockd_proxyproto")


class _Options(TypedDict):
    timeout_s: float
    max_length: int
    verify_checksum: bool
    tolerate: Tolerance


class _UnwantedHeaderError(ProxyProtocolError):
    """The policy refuses headers, and one came."""


_REASONS: Final[dict[type[Exception], str]] = {
    InvalidHeader: "invalid",
    HeaderTimeoutError: "timeout",
    HeaderTruncatedError: "truncated",
    _UnwantedHeaderError: "rejected",
    anyio.BrokenResourceError: "broken",
    anyio.ClosedResourceError: "broken",
    OSError: "broken",
    Exception: "policy",
}


class ProxyProtocolListener(Listener[ProxiedStream]):
    """Serves the connections of another listener behind their PROXY headers.

    Each header is received in its connection's own task, under one deadline: a slow or hostile upstream costs its own
    connection and nothing else. A connection that does not get through is closed and counted in ``refused``; a peer
    that closed without sending a byte is not logged.

    Args:
        listener: Gives the raw connections, such as what `anyio.create_tcp_listener` makes.
        policy: What to do about the header: one for all upstreams, or a function of the upstream such as
            `policy_by_network` makes.
        timeout_s: Seconds for one whole header.
        max_length: As for `decode`.
        verify_checksum: As for `decode`.
        tolerate: As for `decode`.

    Raises:
        ValueError: ``policy`` is none, or ``max_length`` is out of range.

    Attributes:
        refused: Number of connections that did not reach the handler, by reason: ``invalid``, ``timeout``,
            ``truncated``, ``rejected`` (a header that the policy refuses), ``broken`` (the connection failed) and
            ``policy`` (the policy function raised).
    """

    def __init__(
        self,
        listener: Listener[ByteStream],
        policy: Policy | PolicyOf = Policy.REQUIRE,
        *,
        timeout_s: float = HEADER_TIMEOUT_S,
        max_length: int = DEFAULT_LIMIT_BYTES,
        verify_checksum: bool = True,
        tolerate: Tolerance = Tolerance.NONE,
    ) -> None:
        self.refused: Counter[str] = Counter()
        self._listener = listener
        self._policy = policy if callable(policy) else Policy(policy)
        check_max_length(max_length)
        self._options: _Options = {
            "timeout_s": timeout_s,
            "max_length": max_length,
            "verify_checksum": verify_checksum,
            "tolerate": tolerate,
        }

    async def serve(self, handler: Callable[[ProxiedStream], Any], task_group: TaskGroup | None = None) -> None:
        """Serve connections for ever, as the wrapped listener does.

        Args:
            handler: Called with each connection once its header is off.
            task_group: Where connections run; a new one when it is not given.
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
        """Those of the wrapped listener."""
        return self._listener.extra_attributes

    async def _accept(self, stream: ByteStream) -> ProxiedStream | None:
        """Take the header off; or close the connection and count why."""
        accepted = None
        try:
            accepted = await self._take_header(stream)
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends this connection and no other
            self._count(error)
        finally:
            if accepted is None:
                await anyio.aclose_forcefully(stream)
        return accepted

    async def _take_header(self, stream: ByteStream) -> ProxiedStream:
        if callable(self._policy):
            upstream = stream.extra(SocketAttribute.remote_address, "")  # noqa: S610 - not Django's
            policy = Policy(self._policy(upstream))
        else:
            policy = self._policy
        if policy is Policy.SKIP:
            return ProxiedStream(stream)
        if policy is Policy.REQUIRE:
            return ProxiedStream(stream, await receive_header(stream, **self._options))
        header, unread = await look_for_header(stream, **self._options)
        if policy is Policy.REJECT and header is not None:
            raise _UnwantedHeaderError("this upstream may not send PROXY protocol headers")
        return ProxiedStream(stream, header if policy is Policy.USE else None, unread)

    def _count(self, error: Exception) -> None:
        reason = next(reason for kind, reason in _REASONS.items() if isinstance(error, kind))
        self.refused[reason] += 1
        if not isinstance(error, HeaderTruncatedError) or error.received:
            _logger.info("refused a connection (%s): %s", reason, error, exc_info=reason == "policy")
