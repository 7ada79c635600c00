"""What pyOpenSSL does not pass on from OpenSSL; the binding underneath it does, or may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.bindings.openssl.binding import Binding

if TYPE_CHECKING:
    from collections.abc import Callable

    from OpenSSL import SSL

CALLBACK: Final = "unsigned int (*)(SSL *, const char *, unsigned char *, unsigned int)"


def has_psk() -> bool:
    """Whether this build of the binding and its OpenSSL knows pre-shared keys."""
    return bool(getattr(Binding.lib, "Cryptography_HAS_PSK", 0))


def why_refused(number: int) -> str:
    """The reason for which a certificate was refused, in OpenSSL's words (openssl-verification-options(1))."""
    words: bytes = Binding.ffi.string(Binding.lib.X509_verify_cert_error_string(number))
    return words.decode("ascii", "backslashreplace")


def set_psk_callback(context: SSL.Context, find_key: Callable[[bytes], bytes | None]) -> Any:
    """Let clients of a context prove themselves by a key instead of a certificate (RFC 4279).

    Args:
        context: The context, which is not in use yet.
        find_key: Called with the identity that the client sent. It returns the key, or None, and does not raise.

    Returns:
        What has to live as long as the context.
    """
    lib, ffi = Binding.lib, Binding.ffi

    def give_key(_: Any, identity: Any, room: Any, room_bytes: int) -> int:
        key = find_key(ffi.string(identity))
        if key is None or len(key) > room_bytes:
            return 0  # OpenSSL answers that it does not know the identity
        ffi.memmove(room, key, len(key))
        return len(key)

    callback = ffi.callback(CALLBACK, give_key)
    lib.SSL_CTX_set_psk_server_callback(context._context, callback)  # noqa: SLF001 (there is no other way to it)
    return callback
