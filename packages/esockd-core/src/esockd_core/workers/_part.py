"""The part that one worker has of a listener, as the parent speaks to it."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

from esockd_core._remote.channel import unreachable
from esockd_core._remote.remote_listener import RemoteListener
from esockd_core.workers._orders import pack

if TYPE_CHECKING:
    from esockd_core._remote.channel import Channel
    from esockd_core.workers._descriptors import DescriptorSender
    from esockd_core.workers._orders import ChangeOrder, ListenerOrder


class WorkerPart(RemoteListener):
    """Changes one worker's part of a listener, also by what exists in this process only, such as sockets and objects.

    Args:
        channel: The channel to the worker.
        descriptors: Sends descriptors to the worker.
        order: What the worker was told of the listener, or is about to be.
        share: The number of the worker's share.

    Attributes:
        share: The number of the worker's share.
    """

    def __init__(self, channel: Channel, descriptors: DescriptorSender, order: ListenerOrder, share: int) -> None:
        super().__init__(channel, order.name, str(order.address))
        self.share = share
        self._number = order.number
        self._descriptors = descriptors

    async def begin(self, order: ListenerOrder) -> None:
        """Open the listener in a worker that runs already. It imports the handler.

        Raises:
            EsockdError: If it cannot, or has ended.
        """
        needed = (order.memory, *order.descriptors)
        data = b64encode(pack(order)).decode()
        try:
            number = self._descriptors.send(needed)
        except OSError as error:
            raise unreachable(f"a worker takes no descriptors: {error.strerror}") from error
        await self._channel.request("begin", {"order": data, "number": number, "descriptors": len(needed)})

    async def change(self, order: ChangeOrder) -> None:
        """Put another handler and other options in force, both or neither.

        Raises:
            EsockdError: If the worker refuses, or has ended.
        """
        data = b64encode(pack(order)).decode()
        await self._channel.request("change", {"order": data, "listener": self._number})

    async def put_back(self) -> None:
        """Undo the last `change`: the same handler and options as before are in force again.

        Raises:
            EsockdError: If the worker cannot, or has ended.
        """
        await self._channel.request("put_back", {"listener": self._number})

    async def wait_draining(self) -> None:
        """Return when the worker has closed its copies of the listening sockets.

        Raises:
            EsockdError: If it has ended.
        """
        await self._channel.request("wait_draining", {"listener": self._number}, waits=True)

    async def forget(self) -> None:
        """Let the worker forget the listener, which has closed, and give back its memory.

        Raises:
            EsockdError: If it has ended.
        """
        await self._channel.request("forget", {"listener": self._number})
