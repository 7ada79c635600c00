"""A small broker for MQTT 3.1.1 (OASIS, 2014): retained messages, wildcards, keepalive; deliveries at QoS 0.

python examples/mqtt_broker.py 1883  # or: tls://8883 server.pem server.key
mosquitto_sub -t 'house/#' -v &
mosquitto_pub -t house/hall/temperature -m 21
"""

from __future__ import annotations

import sys
from functools import partial

import anyio

from esockd_core import Server, StreamConnection, TlsOptions

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = range(1, 8)
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = range(8, 15)


class ProtocolError(ValueError):
    """If a client breaks the protocol."""


def packet(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    """A control packet; section 2.2.3 has its length."""
    length, left = bytearray(), len(body)
    while left > 127:
        length.append(left & 127 | 128)
        left >>= 7
    return bytes([kind << 4 | flags, *length, left]) + body


def take_text(body: bytes, at: int) -> tuple[str, int]:
    """A text with its length in front (section 1.5.3), and where it ends."""
    end = at + 2 + int.from_bytes(body[at : at + 2])
    if end > len(body):
        raise ProtocolError("a text is longer than its packet")
    return body[at + 2 : end].decode(), end


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a subscription takes a topic; section 4.7."""
    wanted, given = topic_filter.split("/"), topic.split("/")
    if wanted[0] in ("+", "#") and topic.startswith("$"):
        return False
    if wanted[-1] == "#":
        wanted, given = wanted[:-1], given[: len(wanted) - 1]
    return len(wanted) == len(given) and all(want in ("+", level) for want, level in zip(wanted, given, strict=True))


async def receive(connection: StreamConnection) -> tuple[int, int, bytes]:
    """The kind, flags and body of the next packet."""
    first = (await connection.receive_exactly(1))[0]
    length, shift, digit = 0, 0, 128
    while digit > 127:
        digit = (await connection.receive_exactly(1, mid_message=True))[0]
        length |= (digit & 127) << shift
        shift += 7
        if length > 1 << 20 or shift > 28:
            raise ProtocolError("the packet is too long")
    return first >> 4, first & 15, await connection.receive_exactly(length, mid_message=True)


class Broker:
    """Who has subscribed to what, and the retained messages."""

    def __init__(self) -> None:
        self._filters: dict[StreamConnection, set[str]] = {}
        self._retained: dict[str, bytes] = {}

    async def serve(self, connection: StreamConnection) -> None:
        """Serve one client until it leaves, falls silent or breaks the protocol."""
        try:
            with anyio.fail_after(10):  # section 3.1: not for ever
                kind, _, body = await receive(connection)
            name, at = take_text(body, 0)
            if (kind, name, body[at : at + 1]) != (CONNECT, "MQTT", b"\x04"):
                await connection.send(packet(CONNACK, b"\x00\x01"))  # section 3.2.2.3: unacceptable version
                return
            await connection.send(packet(CONNACK, b"\x00\x00"))
            silence_s = int.from_bytes(body[at + 2 : at + 4]) * 1.5 or None  # section 3.1.2.10
            self._filters[connection] = set()
            with connection.until_draining():
                while kind != DISCONNECT:
                    with anyio.fail_after(silence_s):
                        kind, flags, body = await receive(connection)
                    await self._obey(connection, kind, flags, body)
        except (anyio.EndOfStream, TimeoutError):
            pass  # it left, or fell silent
        except (ProtocolError, UnicodeDecodeError):
            connection.abort("malformed_packet")
        finally:
            self._filters.pop(connection, None)

    async def _obey(self, connection: StreamConnection, kind: int, flags: int, body: bytes) -> None:
        if kind == PUBLISH:
            topic, at = take_text(body, 0)
            if qos := flags >> 1 & 3:
                answer = PUBACK if qos == 1 else PUBREC
                await connection.send(packet(answer, body[at : at + 2]))
                at += 2
            self._publish(topic, body[at:], retain=bool(flags & 1))
        elif kind == PUBREL:
            await connection.send(packet(PUBCOMP, body))
        elif kind in (SUBSCRIBE, UNSUBSCRIBE):
            filters, at = [], 2
            while at < len(body):
                topic_filter, at = take_text(body, at)
                filters.append(topic_filter)
                at += kind == SUBSCRIBE  # skips the QoS
            if kind == UNSUBSCRIBE:
                self._filters[connection].difference_update(filters)
                await connection.send(packet(UNSUBACK, body[:2]))
                return
            self._filters[connection].update(filters)
            await connection.send(packet(SUBACK, body[:2] + bytes(len(filters))))
            for topic, message in list(self._retained.items()):
                if any(matches(each, topic) for each in filters):
                    await connection.send(packet(PUBLISH, message, flags=1))
        elif kind == PINGREQ:
            await connection.send(packet(PINGRESP))

    def _publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        message = len(topic.encode()).to_bytes(2) + topic.encode() + payload
        if retain and payload:
            self._retained[topic] = message
        elif retain:
            self._retained.pop(topic, None)
        for subscriber, filters in self._filters.items():
            if any(matches(each, topic) for each in filters):
                try:
                    subscriber.send_nowait(packet(PUBLISH, message))
                except (anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    subscriber.abort("too_slow")  # or it is gone, and then this does nothing


async def main(address: str, *files: str) -> None:
    """Serve until SIGINT or SIGTERM."""
    tls = TlsOptions(certfile=files[0], keyfile=files[1]) if files else None
    async with Server() as server:
        listener = await server.open("mqtt", address, Broker().serve, tls=tls)
        print("listening on", *listener.addresses, flush=True)
        await server.serve_until_signal()


if __name__ == "__main__":
    anyio.run(partial(main, *sys.argv[1:]))
