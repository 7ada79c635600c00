"""Access rules around any AnyIO listener. Needs the extra `anyio`."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

try:
    import anyio
    from anyio.abc import AsyncResource, Listener, SocketAttribute
except ModuleNotFoundError as _missing:
    raise ImportError('esockd_cidr.listener needs anyio: pip install "esockd-cidr[anyio]"') from _missing

from esockd_cidr import AccessList, InvalidAddress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio import TypedAttributeProvider
    from anyio.abc import TaskGroup

__all__ = ["AccessListener"]

StreamT = TypeVar("StreamT", bound=AsyncResource)


class AccessListener(Listener[StreamT]):
    """Hands on the connections that the rules let in, and closes the others at once.

    Each connection counts in exactly one of the three numbers.

    Args:
        listener: Any listener, `anyio.create_tcp_listener`'s or another wrapper. It is closed with this one.
        access: The rules. They judge each connection's remote address, which is the source around a listener that
            takes PROXY headers. They may change at any time, and decide about new connections only.

    Attributes:
        access: The rules; may be set to another list.
        accepted: How many connections were handed on.
        closed_forbidden: How many the rules refused; an address that cannot be read is refused too.
        closed_early: How many had no remote address any more, because the client had left.
    """

    def __init__(self, listener: Listener[StreamT], access: AccessList) -> None:
        self.access = access
        self.accepted: int = 0
        self.closed_forbidden: int = 0
        self.closed_early: int = 0
        self._listener = listener

    async def serve(self, handler: Callable[[StreamT], Any], task_group: TaskGroup | None = None) -> None:
        """Accept connections and start the handler for those the rules let in, as `anyio.abc.Listener.serve`."""
        await self._listener.serve(partial(self._admit, handler), task_group)

    async def aclose(self) -> None:
        """Close the wrapped listener."""
        await self._listener.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Those of the wrapped listener."""
        return self._listener.extra_attributes

    async def _admit(self, handler: Callable[[StreamT], Any], stream: StreamT) -> None:
        provider: TypedAttributeProvider = stream  # type: ignore[assignment]  # every stream of AnyIO is one
        address = provider.extra(SocketAttribute.remote_address, None)  # noqa: S610 (not Django's)
        if address is None:
            self.closed_early += 1
        elif self._lets_in(address):
            self.accepted += 1
            await handler(stream)
            return
        else:
            self.closed_forbidden += 1
        with suppress(
            Exception
        ):  # a stream that cannot be closed properly, such as TLS cut short, is closed all the same
            await anyio.aclose_forcefully(stream)

    def _lets_in(self, address: tuple[str, int] | str | bytes) -> bool:
        try:
            return self.access.allows(address if isinstance(address, tuple) else "unix:")
        except InvalidAddress:
            return False
