"""Records of DTLS 1.2 (RFC 6347 section 4.1) and the handshake messages in them: taken apart, and packed.

OpenSSL reads and writes them by way of memory, which does not keep the borders of datagrams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORD_HEADER_BYTES: Final = 13  # type, version, epoch, sequence number, length
HANDSHAKE_HEADER_BYTES: Final = 12  # type, length, message number, offset and length of the fragment (section 4.2.2)
HANDSHAKE: Final = 22
CERTIFICATE: Final = 11
MAX_RECORDS: Final = 64  # that are read of one datagram; a flight of a handshake has some ten

# A client's part of a handshake. OpenSSL sets memory aside for the whole of a message as soon as a fragment of it
# comes, of up to 100 KB and for ten messages ahead: a handful of datagrams would take a megabyte.
MAX_CERTIFICATE_BYTES: Final = 32_768  # of the client's chain
MAX_MESSAGE_BYTES: Final = 2_560  # of any other message: a key or signature of RSA with 16,384 bits takes 2,048
MAX_MESSAGE_NUMBER: Final = 7  # hello, hello with cookie, certificate, key, proof and the end of the handshake


def split_records(datagram: bytes) -> Iterator[bytes]:
    """The whole records of a datagram, until something else comes."""
    at = 0
    for _ in range(MAX_RECORDS):
        body = at + RECORD_HEADER_BYTES
        end = body + int.from_bytes(datagram[at + 11 : body], "big")
        if body > len(datagram) or end > len(datagram):
            return
        yield datagram if at == 0 and end == len(datagram) else datagram[at:end]
        at = end


def pack_records(records: bytes, mtu: int) -> list[bytes]:
    """Pack records into as few datagrams as hold them, in order.

    Args:
        records: What OpenSSL wrote, one record after the other.
        mtu: The largest datagram in bytes. A record that is larger goes alone.
    """
    datagrams: list[bytes] = []
    begin = at = 0
    while at < len(records):
        end = at + RECORD_HEADER_BYTES + int.from_bytes(records[at + 11 : at + 13], "big")
        if end - begin > mtu and at > begin:
            datagrams.append(records[begin:at])
            begin = at
        at = end
    if begin < len(records):
        datagrams.append(records[begin:])
    return datagrams


def is_affordable(record: bytes, takes_certificates: bool) -> bool:
    """Whether the handshake messages of a client's record ask for no more memory than an honest client needs."""
    if record[0] != HANDSHAKE or record[3:5] != b"\0\0":
        return True  # not of a handshake, or encrypted
    at = RECORD_HEADER_BYTES
    while at < len(record):
        body = at + HANDSHAKE_HEADER_BYTES
        if body > len(record):
            return False
        kind, length, number = record[at], _read_24(record, at + 1), int.from_bytes(record[at + 4 : at + 6], "big")
        most = MAX_CERTIFICATE_BYTES if kind == CERTIFICATE and takes_certificates else MAX_MESSAGE_BYTES
        if length > most or number > MAX_MESSAGE_NUMBER:
            return False
        at = body + _read_24(record, at + 9)
    return True


def _read_24(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 3], "big")
