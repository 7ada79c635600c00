"""Cookies by which a client proves that it receives at the address it claims to have (RFC 6347 section 4.2.1)."""

from __future__ import annotations

import hmac
import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from esockd_core._dtls.hello import ClientHello

SECRET_MS: Final = 60_000  # a cookie lives once to twice as long: a client that loses datagrams tries for a minute
SECRET_BYTES: Final = 32
TIME_BYTES: Final = 5  # of milliseconds: 34 years
# With the time, 32 bytes: the most that DTLS 1.0 allowed. The question is then 60 bytes long, and no hello below 67.
PROOF_BYTES: Final = 27


class Cookies:
    """Bakes cookies and knows them again, without remembering one.

    Args:
        clock: Seconds, never running backwards.
        random: Makes secrets.
    """

    __slots__ = ("_begun", "_clock", "_random", "_secrets")

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._clock = clock
        self._random = random
        self._begun = clock()
        self._secrets: dict[int, bytes] = {}  # by period; the latest and the one before it

    def bake(self, hello: ClientHello, address: object) -> bytes:
        """A cookie for a hello that came from an address."""
        now = self._now_ms()
        period = now // SECRET_MS
        if (secret := self._secrets.get(period)) is None:
            secret = self._random(SECRET_BYTES)
            last = self._secrets.get(period - 1)
            self._secrets = {period: secret} if last is None else {period - 1: last, period: secret}
        stamp = now.to_bytes(TIME_BYTES, "big")
        return stamp + _prove(secret, stamp, hello, address)

    def read(self, hello: ClientHello, address: object) -> int | None:
        """The time at which the cookie of a hello was baked, if it was for this hello and address and is not too old.

        Returns:
            Milliseconds, to tell an older cookie from a newer one; None if the cookie proves nothing.
        """
        stamp = hello.cookie[:TIME_BYTES]
        baked = int.from_bytes(stamp, "big")
        period = baked // SECRET_MS
        secret = self._secrets.get(period)
        if secret is None or period < self._now_ms() // SECRET_MS - 1:
            return None
        proof = _prove(secret, stamp, hello, address)
        return baked if hmac.compare_digest(proof, hello.cookie[TIME_BYTES:]) else None

    def _now_ms(self) -> int:
        return int((self._clock() - self._begun) * 1_000)


def _prove(secret: bytes, stamp: bytes, hello: ClientHello, address: object) -> bytes:
    where = repr(address).encode()
    text = b"%s%d:%s%s" % (stamp, len(where), where, hello.parameters)
    return hmac.digest(secret, text, "sha256")[:PROOF_BYTES]
