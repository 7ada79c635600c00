"""The changes that clients of a control socket make: for each listener one after the other, each with a log line."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import WeakKeyDictionary

import anyio

from esockd_core._errors import EsockdError
from esockd_core._listening.audited import told_elsewhere
from esockd_core._remote.methods import WAITS
from esockd_core.control.audit import describe_change, look_before
from esockd_core.control.values import ListenerStatus

if TYPE_CHECKING:
    from esockd_core._platform.peer_process import PeerProcess
    from esockd_core.control.interface import ListenerControl

logger = logging.getLogger("esockd_core.audit")

SOON_S: Final = 0.1  # in which a listener that is asked to end has begun to

Call: TypeAlias = Callable[[], Awaitable[Any]]


class Changes:
    """Makes changes, one after the other for each listener, and logs them."""

    def __init__(self) -> None:
        self._turns: WeakKeyDictionary[ListenerControl, anyio.Lock] = WeakKeyDictionary()

    async def make(
        self,
        control: ListenerControl,
        method: str,
        given: Mapping[str, Any],
        call: Call,
        peer: PeerProcess | None,
    ) -> Any:
        """Make a change and log it.

        Args:
            control: The control of the listener.
            method: The name of a method of `ListenerControl`.
            given: Its parameters as they came.
            call: Calls the method.
            peer: The process that asked for the change; None if unknown.
        """

        async def log(before: Any, result: Any = None) -> None:
            told = await describe_change(control, method, given, before, result)
            if told is not None:
                await _log(control, method, told, peer)

        if method in WAITS:
            return await _end(call, log, await control.get_status())
        async with self._turns.setdefault(control, anyio.Lock()):
            before = await look_before(control, method)
            try:
                with told_elsewhere():
                    result = await call()
            except EsockdError:
                await _log_loss(control, method, before, peer)
                raise
            with anyio.CancelScope(shield=True):  # what was done is logged, even if the client left meanwhile
                await log(before, result)
        return result


async def _end(call: Call, log: Callable[[Any], Awaitable[None]], before: ListenerStatus) -> Any:
    """Let a listener end, and log the beginning of that, because it may take long."""
    failure: EsockdError | None = None
    ended = anyio.Event()

    async def log_soon() -> None:
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(SOON_S):
                await ended.wait()
            if failure is None:
                await log(before)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(log_soon)
        try:
            await call()
        except EsockdError as error:
            failure = error
        finally:
            ended.set()
    if failure is not None:
        raise failure


async def _log_loss(control: ListenerControl, method: str, before: object, peer: PeerProcess | None) -> None:
    """Log the one effect that a failed change may have: a listener that reopens may lose its address."""
    state = (await control.get_status()).state
    if isinstance(before, ListenerStatus) and state != before.state:
        await _log(control, f"failed {method}", f"state {before.state} -> {state}", peer)


async def _log(control: ListenerControl, method: str, told: str, peer: PeerProcess | None) -> None:
    status = await control.get_status()
    who = "somebody" if peer is None else f"uid {peer.uid}, pid {peer.pid}"
    logger.info(
        "listener %s on %s: %s by %s: %s",
        status.name,
        status.address,
        method,
        who,
        told,
        extra={"listener": status.name},
    )
