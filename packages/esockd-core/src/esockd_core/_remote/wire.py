"""The protocol of a control socket: one JSON object a line, with longer messages in parts.

The server speaks first, with a greeting. After that each request has an id, which is a number or a short text, and its
answer has the same id:

    server  {"esockd":{"protocol":1,"version":"0.1.0","name":"edge","pid":812,"methods":["allow",...],...}}
    client  {"id":1,"method":"deny","listener":"echo","params":{"network":"203.0.113.0/24"}}
    server  {"id":1,"result":null}
    client  {"id":2,"method":"subscribe","params":{"interval":1}}
    server  {"id":2,"event":{...}}      (until {"id":3,"method":"cancel","params":{"id":2}})
    server  {"id":4,"error":{"code":"invalid_option","message":"...","option":"network","value":"x","reason":"..."}}

A line has at most `MAX_LINE_BYTES`. A longer message is sent as the text of its JSON in pieces:
`{"id":5,"part":"..."}`, and the last one as `{"id":5,"last_part":"..."}`. No other message of that side comes between
them.

Unknown names are ignored in a message, but refused in the parameters of a method that changes something. An unknown
method is the error `unknown_method`. So either side may have the newer version. A field that is added to an answer
later has a default, for clients of older servers.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

PROTOCOL: Final = 1
MAX_LINE_BYTES: Final = 1 << 20
MAX_MESSAGE_BYTES: Final = 16 << 20
PART_CHARS: Final = 500_000  # of plain ASCII; escaped once more it may double
PART_COST_CHARS: Final = 64  # of memory, even if it is empty
MAX_ID_CHARS: Final = 64

Message: TypeAlias = dict[str, Any]
RequestId: TypeAlias = int | str | None


class BadMessage(Exception):  # noqa: N818 (names say what is wrong)
    """A line that is not a message. The next one may be."""


class TooLong(BadMessage):
    """A line or a message that is too long, so that the beginning of the next one is unknown."""


def encode(message: Message) -> list[bytes]:
    """Encode a message as lines.

    Raises:
        TooLong: If it has more than `MAX_MESSAGE_BYTES`.
    """
    return _cut(message.get("id"), to_text(message))


def encode_event(request: RequestId, event: str) -> list[bytes]:
    """Encode an event that is already JSON as lines, because many clients may get it.

    Raises:
        TooLong: If it has more than `MAX_MESSAGE_BYTES`.
    """
    return _cut(request, f'{{"id":{json.dumps(request)},"event":{event}}}')


def to_text(value: object) -> str:
    """Encode as JSON in plain ASCII on one line."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _cut(request: RequestId, text: str) -> list[bytes]:
    if len(text) < MAX_LINE_BYTES:
        return [text.encode("ascii") + b"\n"]
    if len(text) > MAX_MESSAGE_BYTES:
        raise TooLong(f"a message of {len(text)} bytes is beyond the {MAX_MESSAGE_BYTES} that can be sent")
    pieces = [text[start : start + PART_CHARS] for start in range(0, len(text), PART_CHARS)]
    names = ["part"] * (len(pieces) - 1) + ["last_part"]
    return [
        to_text({"id": request, name: piece}).encode("ascii") + b"\n" for name, piece in zip(names, pieces, strict=True)
    ]


class Inbox:
    """Makes messages from the bytes that come.

    Args:
        max_message_bytes: The longest message. One that does not come in parts is also bounded by `MAX_LINE_BYTES`.
    """

    def __init__(self, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._max_message_bytes = max_message_bytes
        self._max_line_bytes = min(MAX_LINE_BYTES, max_message_bytes)
        self._buffer = bytearray()
        self._searched = 0
        self._parts: list[str] = []
        self._parts_chars = 0

    def feed(self, data: bytes) -> Iterator[Message | BadMessage]:
        """The messages that are complete now, in order. A line that is not a message is an error among them.

        Raises:
            TooLong: If a line or a message is beyond its bound.
        """
        self._buffer += data
        while (end := self._buffer.find(b"\n", self._searched)) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._searched = 0
            if len(line) >= self._max_line_bytes:
                self._too_long("line", self._max_line_bytes)
            if not line.isspace() and line:
                message = self._read(line)
                if message is not None:
                    yield message
        self._searched = len(self._buffer)
        if self._searched >= self._max_line_bytes:
            self._too_long("line", self._max_line_bytes)

    def _read(self, line: bytes) -> Message | BadMessage | None:
        message = _parse(line)
        if isinstance(message, BadMessage):
            return message
        piece = message.get("part", message.get("last_part"))
        if not isinstance(piece, str):
            return message
        self._parts.append(piece)
        self._parts_chars += max(len(piece), PART_COST_CHARS)
        if self._parts_chars > self._max_message_bytes:
            self._too_long("message", self._max_message_bytes)
        if "last_part" not in message:
            return None
        whole, self._parts, self._parts_chars = "".join(self._parts), [], 0
        return _parse(whole)

    def _too_long(self, what: str, most: int) -> NoReturn:
        self._buffer.clear()
        self._parts.clear()
        raise TooLong(f"a {what} may have {most} bytes")


def _parse(text: bytes | str) -> Message | BadMessage:
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        message: object = json.loads(decoded, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return BadMessage(f"that is not JSON ({error})")
    if not isinstance(message, dict):
        return BadMessage("a message is a JSON object")
    return cast("Message", message)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def read_id(message: Message) -> RequestId:
    """The id of a message; None if it has no valid one."""
    given = message.get("id")
    is_id = (type(given) is int and abs(given) < 2**63) or (isinstance(given, str) and len(given) <= MAX_ID_CHARS)
    return cast("RequestId", given) if is_id else None
