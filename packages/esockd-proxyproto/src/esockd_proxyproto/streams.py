"""Headers on AnyIO's byte streams: receive one and go on after it, or send one first. Needs the extra ``anyio``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

try:
    import anyio
    import anyio.lowlevel
    from anyio.abc import ByteStream, SocketAttribute
except ModuleNotFoundError as _missing:
    raise ImportError('esockd_proxyproto.streams needs anyio: pip install "esockd-proxyproto[anyio]"') from _missing

from . import Decoder, Endpoint, NotProxyHeader, ProxyHeader, ProxyProtocolError, Tolerance, UnixEndpoint, encode
from ._options import DEFAULT_LIMIT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio.abc import ByteReceiveStream, ByteSendStream

LAST_LOOK_S: Final = 0.05  # reads what arrived in time while the program itself stalled beyond the deadline
HEADER_TIMEOUT: Final = 5.0  # seconds; the specification wants at least 3 s, to outlast one lost segment (PP 2)


class HeaderTimeout(ProxyProtocolError):
    """The deadline passed before the header was whole.

    Attributes:
        received: The bytes that came until then.
    """

    def __init__(self, received: bytes, timeout: float | None) -> None:
        super().__init__(received, timeout)
        self.received = received
        self._timeout = timeout

    def __str__(self) -> str:
        return f"no whole PROXY protocol header within {self._timeout} s; {len(self.received)} bytes of it came"


class HeaderTruncated(ProxyProtocolError):
    """The peer closed before the header was whole. With nothing received it was most likely a port check.

    Attributes:
        received: The bytes that came until then.
    """

    def __init__(self, received: bytes) -> None:
        super().__init__(received)
        self.received = received

    def __str__(self) -> str:
        return f"the peer closed after {len(self.received)} bytes, before a whole PROXY protocol header"


async def receive_header(
    stream: ByteReceiveStream,
    *,
    timeout: float | None = HEADER_TIMEOUT,
    max_length: int = DEFAULT_LIMIT_BYTES,
    verify_checksum: bool = True,
    tolerate: Tolerance = Tolerance.NONE,
) -> ProxyHeader:
    """Receive the header at the start of a stream, and not one byte more.

    No read asks for more than is certainly missing. The stream therefore needs no wrapper afterwards: the next byte it
    gives is the first one after the header.

    Args:
        stream: Any stream of bytes, fresh from the peer.
        timeout: Seconds for the whole header, however slowly its bytes arrive; None for no limit.
        max_length: As for `decode`.
        verify_checksum: As for `decode`.
        tolerate: As for `decode`.

    Returns:
        The header.

    Raises:
        InvalidHeader: If what arrives is not a header; close the stream.
        HeaderTimeout: If the deadline passed; close the stream.
        HeaderTruncated: If the peer closed early.
        anyio.BrokenResourceError: If the connection failed.
        InvalidOption: If ``max_length`` is out of range.

    When it raises or is cancelled, bytes may be gone already: do nothing with the stream but close it.
    """
    decoder = Decoder(max_length=max_length, verify_checksum=verify_checksum, tolerate=tolerate)
    return await _receive(stream, decoder, timeout)


async def _receive(stream: ByteReceiveStream, decoder: Decoder, timeout: float | None) -> ProxyHeader:
    try:
        for seconds in (timeout, LAST_LOOK_S):
            with anyio.move_on_after(seconds):
                while True:
                    header = decoder.feed(await stream.receive(decoder.missing))
                    if header is not None:
                        return header
    except anyio.EndOfStream:
        raise HeaderTruncated(decoder.received) from None
    raise HeaderTimeout(decoder.received, timeout)


async def look_for_header(
    stream: ByteStream,
    *,
    timeout: float = HEADER_TIMEOUT,
    max_length: int = DEFAULT_LIMIT_BYTES,
    verify_checksum: bool = True,
    tolerate: Tolerance = Tolerance.NONE,
) -> tuple[ProxyHeader | None, bytes]:
    """Receive a header if there is one. This is the guessing that PP 2 forbids: use it for trusted peers only.

    A peer sends a header if it sends a whole signature. One that is silent until the deadline, as the client of a
    server that speaks first, does not.

    Args:
        stream: Any stream of bytes, fresh from the peer.
        timeout: Seconds for the whole header.
        max_length: As for `decode`.
        verify_checksum: As for `decode`.
        tolerate: As for `decode`.

    Returns:
        The header and no bytes; or None and the bytes that are not one, which belong to the handler (`ProxiedStream`
        gives them back).

    Raises:
        InvalidHeader: If there is a signature, but no valid header after it.
        HeaderTimeout: If there is a signature, but no whole header before the deadline.
        HeaderTruncated: If there is a signature, but the peer closed before the header was whole.
        anyio.BrokenResourceError: If the connection failed.
        InvalidOption: If ``max_length`` is out of range.
    """
    decoder = Decoder(max_length=max_length, verify_checksum=verify_checksum, tolerate=tolerate)
    try:
        return await _receive(stream, decoder, timeout), b""
    except NotProxyHeader:
        return None, decoder.received
    except (HeaderTimeout, HeaderTruncated):
        if decoder.has_signature:
            raise
        return None, decoder.received


async def send_header(stream: ByteSendStream, header: ProxyHeader, *, checksum: bool = False) -> None:
    """Send a header at once, before everything else (PP 2).

    Args:
        stream: Any stream of bytes on which nothing was sent yet, not even a TLS handshake.
        header: What to say.
        checksum: Whether to add a CRC32C (version 2).

    Raises:
        UnencodableHeader: If the protocol cannot say this; nothing was sent.
    """
    await stream.send(encode(header, checksum=checksum))


class ProxiedStream(ByteStream):
    """A byte stream whose addresses are those of its PROXY header.

    ``SocketAttribute.remote_address``, ``remote_port``, ``local_address`` and ``local_port`` are the header's source
    and destination; every other attribute is the transport's.

    Args:
        stream: The stream after its header.
        header: The header, or None if there was none.
        unread: Bytes to give back before those of the stream.

    Attributes:
        transport_stream: The stream itself.
        header: The header, or None.
    """

    def __init__(self, stream: ByteStream, header: ProxyHeader | None = None, unread: bytes = b"") -> None:
        self.transport_stream = stream
        self.header = header
        self._unread = unread
        self._reading = anyio.ResourceGuard("reading from")

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive what was not read yet, and then what the stream gives.

        Raises:
            ValueError: If ``max_bytes`` is less than 1.
        """
        if not self._unread:
            return await self.transport_stream.receive(max_bytes)
        if max_bytes < 1:
            raise ValueError(f"max_bytes is {max_bytes}: it takes 1 or more")
        with self._reading:  # otherwise a second task could be given what the first one took
            await anyio.lowlevel.checkpoint()
            data, self._unread = self._unread[:max_bytes], self._unread[max_bytes:]
            return data

    async def send(self, item: bytes) -> None:
        """Send on the stream."""
        await self.transport_stream.send(item)

    async def send_eof(self) -> None:
        """End the stream's sending side."""
        await self.transport_stream.send_eof()

    async def aclose(self) -> None:
        """Close the stream, and forget what was not read yet."""
        self._unread = b""
        await self.transport_stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The stream's attributes, with the header's addresses."""
        attributes: dict[Any, Callable[[], Any]] = {**self.transport_stream.extra_attributes}
        if self.header is not None and self.header.source is not None and self.header.destination is not None:
            _overlay(attributes, self.header.source, SocketAttribute.remote_address, SocketAttribute.remote_port)
            _overlay(attributes, self.header.destination, SocketAttribute.local_address, SocketAttribute.local_port)
        return attributes


def _overlay(
    attributes: dict[Any, Callable[[], Any]], endpoint: Endpoint | UnixEndpoint, address_key: object, port_key: object
) -> None:
    if isinstance(endpoint, UnixEndpoint):
        path = os.fsdecode(endpoint.path)
        attributes[address_key] = lambda: path
        attributes.pop(port_key, None)
    else:
        attributes[address_key] = lambda: tuple(endpoint)
        attributes[port_key] = lambda: endpoint.port
