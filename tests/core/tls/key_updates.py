"""Key updates of TLS 1.3 (RFC 8446 section 4.6.3), which Python's `ssl` cannot ask for and OpenSSL can."""

from __future__ import annotations

import _ssl  # whose file has OpenSSL's functions
import ctypes
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ssl

UPDATE_REQUESTED: Final = 1  # openssl/ssl.h: SSL_KEY_UPDATE_REQUESTED
# CPython's PySSLSocket: the head of an object, a weak reference to the socket, then the SSL *.
SSL_OFFSET: Final = object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)

openssl = ctypes.CDLL(_ssl.__file__)
openssl.SSL_key_update.argtypes = [ctypes.c_void_p, ctypes.c_int]


def key_update(tls: ssl.SSLObject, outgoing: ssl.MemoryBIO) -> bytes:
    """A record that updates the keys of this side, and asks the other to update its own."""
    assert tls.version() == "TLSv1.3"
    pointer = ctypes.c_void_p.from_address(id(tls._sslobj) + SSL_OFFSET)  # type: ignore[attr-defined]
    assert openssl.SSL_key_update(pointer, UPDATE_REQUESTED) == 1
    tls.do_handshake()
    return outgoing.read()
