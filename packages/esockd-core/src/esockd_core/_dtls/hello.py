"""The hello of a client, read before anything is known of the client, and the question that answers it.

RFC 6347 section 4.2.1 has the exchange, section 4.2.2 the header of a message, and RFC 5246 section 7.4.1.2 the rest.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from esockd_core._dtls.records import HANDSHAKE, HANDSHAKE_HEADER_BYTES, RECORD_HEADER_BYTES

CLIENT_HELLO: Final = 1
HELLO_VERIFY_REQUEST: Final = b"\3"
DTLS_MAJOR: Final = 0xFE
DTLS_1_0: Final = b"\xfe\xff"  # of the question, whatever is spoken afterwards
BODY_AT: Final = RECORD_HEADER_BYTES + HANDSHAKE_HEADER_BYTES
SESSION_AT: Final = BODY_AT + 34  # behind version and random bytes
MAX_SESSION_BYTES: Final = 32


class ClientHello(NamedTuple):
    """A client's hello, whole and in one record.

    Attributes:
        record: The record, without what came behind it in the datagram.
        cookie: The cookie; empty in a first hello.
        parameters: What has to be the same in the hello with the cookie as in the first one.
        number: The number of the message; 1 with a cookie.
    """

    record: bytes
    cookie: bytes
    parameters: bytes
    number: int


def is_hello(datagram: bytes) -> bool:
    """Whether a datagram begins as a hello does."""
    return (
        len(datagram) > BODY_AT
        and datagram[0] == HANDSHAKE
        and datagram[RECORD_HEADER_BYTES] == CLIENT_HELLO
        and datagram[3:5] == b"\0\0"
    )


def read_hello(datagram: bytes) -> ClientHello | None:
    """Read a client's hello strictly; None if it is not one.

    One in fragments is not read: putting them together would take memory for a client whose address may be false.
    """
    if not is_hello(datagram) or datagram[1] != DTLS_MAJOR or datagram[BODY_AT] != DTLS_MAJOR:
        return None
    end = RECORD_HEADER_BYTES + int.from_bytes(datagram[11:13], "big")
    record = datagram[:end]
    length = (end - BODY_AT).to_bytes(3, "big") if BODY_AT < end <= len(datagram) else b""
    # The length of the message, of its only fragment, and the fragment's place.
    if record[14:17] != length or record[22:25] != length or record[19:22] != b"\0\0\0":
        return None
    try:
        return _read_body(record)
    except IndexError:
        return None


def _read_body(record: bytes) -> ClientHello | None:
    cookie_at = SESSION_AT + 1 + record[SESSION_AT]
    ciphers_at = cookie_at + 1 + record[cookie_at]
    ciphers_bytes = int.from_bytes(record[ciphers_at : ciphers_at + 2], "big")
    methods_at = ciphers_at + 2 + ciphers_bytes
    methods_bytes = record[methods_at]
    end = methods_at + 1 + methods_bytes
    if record[SESSION_AT] > MAX_SESSION_BYTES or ciphers_bytes == 0 or ciphers_bytes % 2 or methods_bytes == 0:
        return None
    # It ends there, or with extensions of just the length that is left.
    if end != len(record) and end + 2 + int.from_bytes(record[end : end + 2], "big") != len(record):
        return None
    return ClientHello(
        record=record,
        cookie=record[cookie_at + 1 : ciphers_at],
        parameters=record[BODY_AT:cookie_at] + record[ciphers_at:end],
        number=int.from_bytes(record[17:19], "big"),
    )


def ask_for_cookie(hello: ClientHello, cookie: bytes) -> bytes:
    """The datagram that asks the client to say its hello again with this cookie (HelloVerifyRequest)."""
    body = DTLS_1_0 + bytes((len(cookie),)) + cookie
    length = len(body).to_bytes(3, "big")
    message = HELLO_VERIFY_REQUEST + length + b"\0\0" + b"\0\0\0" + length + body
    numbers = hello.record[3:11]  # epoch and sequence number have to be the client's
    return bytes((HANDSHAKE,)) + DTLS_1_0 + numbers + len(message).to_bytes(2, "big") + message
