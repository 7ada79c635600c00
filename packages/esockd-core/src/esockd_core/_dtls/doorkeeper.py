"""The answer to datagrams of clients that nothing is known of: a question, silence, or the way in."""

from __future__ import annotations

from typing import Final

from esockd_core._dtls.cookies import Cookies
from esockd_core._dtls.hello import ClientHello, ask_for_cookie, read_hello

SILENCE: Final = b""


class DtlsDoorkeeper:
    """Lets in who has proven an address, without keeping anything for the others.

    Args:
        cookies: The cookies of the listener.
    """

    __slots__ = ("_cookies",)

    def __init__(self, cookies: Cookies | None = None) -> None:
        self._cookies = cookies or Cookies()

    def answer(self, datagram: bytes, peer: object) -> bytes | None:
        """The answer to a datagram, which is shorter than it.

        Returns:
            What to send, b"" to send nothing; None if the datagram is a hello whose cookie proves the address.
        """
        hello = read_hello(datagram)
        if hello is None or hello.number > 1:
            return SILENCE
        if self.baked_at(hello, peer) is not None:
            return None
        return ask_for_cookie(hello, self._cookies.bake(hello, peer))

    def baked_at(self, hello: ClientHello, peer: object) -> int | None:
        """When the cookie of a hello was baked, in milliseconds of the listener's; None if it proves nothing.

        OpenSSL goes on from the second message of a client only, so no other hello has a cookie that counts.
        """
        return self._cookies.read(hello, peer) if hello.number == 1 else None
