"""The other side of DTLS in memory: a client of pyOpenSSL, a server made of the parts, and a bad network."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import anyio
from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL
from tests.patience import PATIENCE_S

from esockd_core._dtls.doorkeeper import DtlsDoorkeeper
from esockd_core._dtls.hello import read_hello
from esockd_core._dtls.records import pack_records, split_records
from esockd_core._dtls.session import DtlsSession

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from esockd_core import Listener
    from esockd_core._options.dtls import DtlsOptions

ADDRESS = ("192.0.2.7", 41000)


class Client:
    """A client, which takes and gives datagrams."""

    def __init__(
        self,
        *,
        server_name: str | None = None,
        alpn: Sequence[str] = (),
        certificate: Path | None = None,
        authority: Path | None = None,
        psk: tuple[bytes, bytes] | None = None,
        ciphers: bytes | None = None,
        mtu: int = 1_200,
    ) -> None:
        context = SSL.Context(SSL.DTLS_CLIENT_METHOD)
        context.set_options(SSL.OP_NO_QUERY_MTU)
        if alpn:
            context.set_alpn_protos([name.encode() for name in alpn])
        if certificate is not None:
            context.use_certificate_chain_file(certificate)
            context.use_privatekey_file(certificate)
        if authority is not None:
            context.load_verify_locations(authority)
            context.set_verify(SSL.VERIFY_PEER)
        if ciphers is not None:
            context.set_cipher_list(ciphers)
        if psk is not None:
            self._kept = use_psk(context, *psk)
        self.mtu = mtu
        self.tls = SSL.Connection(context)
        self.tls.set_ciphertext_mtu(mtu)
        self.tls.set_connect_state()
        if server_name is not None:
            self.tls.set_tlsext_host_name(server_name.encode())
        self.handshaken = False
        self.is_closed = False
        self.error: SSL.Error | None = None

    def hello(self) -> list[bytes]:
        self._shake()
        return self.take()

    def feed(self, datagram: bytes) -> list[bytes]:
        messages: list[bytes] = []
        for record in split_records(datagram):
            self.tls.bio_write(record)
            if self.handshaken or self._shake():
                try:
                    while True:
                        messages.append(self.tls.recv(16_384))
                except SSL.WantReadError:
                    pass
                except SSL.ZeroReturnError:
                    self.is_closed = True
                except SSL.Error as error:
                    self.error = error
        return messages

    def _shake(self) -> bool:
        try:
            self.tls.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            self.error = error
            return False
        self.handshaken = True
        return True

    def take(self) -> list[bytes]:
        with suppress(SSL.WantReadError):
            return pack_records(self.tls.bio_read(65_536), self.mtu)
        return []

    def write(self, message: bytes) -> bytes:
        self.tls.send(message)
        [datagram] = self.take()
        return datagram

    def close(self) -> list[bytes]:
        self.tls.shutdown()
        return self.take()

    def timeout(self) -> float | None:
        return self.tls.DTLSv1_get_timeout()

    def handle_timeout(self) -> list[bytes]:
        self.tls.DTLSv1_handle_timeout()
        return self.take()


def use_psk(context: SSL.Context, identity: bytes, key: bytes) -> Any:
    ffi = Binding.ffi

    def give(_: Any, hint: Any, to: Any, to_bytes: int, key_to: Any, key_bytes: int) -> int:
        ffi.memmove(to, identity + b"\0", len(identity) + 1)
        ffi.memmove(key_to, key, len(key))
        return len(key)

    kind = "unsigned int (*)(SSL *, const char *, char *, unsigned int, unsigned char *, unsigned int)"
    callback = ffi.callback(kind, give)
    Binding.lib.SSL_CTX_set_psk_client_callback(context._context, callback)
    return callback


class Server:
    """A server for one client, which answers every message with itself."""

    def __init__(self, options: DtlsOptions) -> None:
        self.context = options.context
        self.doorkeeper = DtlsDoorkeeper()
        self.session: DtlsSession | None = None
        self.received: list[bytes] = []

    def feed(self, datagram: bytes) -> list[bytes]:
        if self.session is None:
            answer = self.doorkeeper.answer(datagram, ADDRESS)
            if answer is not None:
                assert len(answer) < len(datagram)
                return [answer] if answer else []
            hello = read_hello(datagram)
            assert hello is not None
            self.session = DtlsSession(self.context, hello)
            return self.session.take()
        messages = self.session.feed(datagram)
        self.received += messages
        return self.session.take() + [self.session.write(message) for message in messages]


def shake(server: Server, client: Client) -> DtlsSession:
    """Finish the handshake, or bring it to where it fails."""
    to_server = client.hello()
    for _ in range(10):
        answers = [answer for datagram in to_server for answer in server.feed(datagram)]
        for answer in answers:
            client.feed(answer)
        to_server = client.take()
        if not to_server:
            break
    assert server.session is not None
    return server.session


def echo(server: Server, client: Client, message: bytes) -> list[bytes]:
    """What comes back for a message."""
    return [answer for datagram in server.feed(client.write(message)) for answer in client.feed(datagram)]


@dataclass
class Network:
    """A network that loses, doubles and reorders datagrams, always in the same way for a seed."""

    seed: int
    loss: float = 0.1
    doubling: float = 0.05
    reordering: float = 0.1
    _held: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)

    def carry(self, datagrams: Iterable[bytes]) -> list[bytes]:
        arriving: list[bytes] = []
        for datagram in datagrams:
            if self._dice.random() < self.loss:
                continue
            if self._dice.random() < self.reordering:
                self._held.append(datagram)
                continue
            arriving += [datagram] * (2 if self._dice.random() < self.doubling else 1)
            arriving += self._held
            self._held.clear()
        return arriving

    def release(self) -> list[bytes]:
        late, self._held = self._held, []
        return late


class Peer:
    """A client with a socket, by which it talks to a listener."""

    def __init__(self, listener: Listener, client: Client | None = None, source: str = "127.0.0.1") -> None:
        self.client = client or Client()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((source, 0))
        self.socket.setblocking(False)
        assert listener.port is not None
        self.target = ("127.0.0.1", listener.port)
        self.messages: list[bytes] = []

    @property
    def name(self) -> tuple[str, int]:
        name: tuple[str, int] = self.socket.getsockname()
        return name

    def send_all(self, datagrams: Iterable[bytes]) -> None:
        for datagram in datagrams:
            self.socket.sendto(datagram, self.target)

    def take_datagram(self) -> bytes | None:
        """A datagram of the server that is here already."""
        with suppress(BlockingIOError):
            while True:
                data, address = self.socket.recvfrom(65_536)
                if address[1] == self.target[1]:  # or else a late one for who had this port before
                    return data
        return None

    async def receive_datagram(self) -> bytes:
        with anyio.fail_after(PATIENCE_S):
            while (datagram := self.take_datagram()) is None:
                await anyio.wait_readable(self.socket)
        return datagram

    async def shake(self) -> Self:
        """Finish the handshake, or find out that the server refuses it."""
        self.send_all(self.client.hello())
        while not self.client.handshaken and self.client.error is None:
            self.messages += self.client.feed(await self.receive_datagram())
            self.send_all(self.client.take())
        return self

    async def shake_patiently(self) -> Self:
        """Finish the handshake over a network that loses datagrams."""
        self.send_all(self.client.hello())
        while not self.client.handshaken:
            with anyio.move_on_after(self.client.timeout() or 0):
                self.messages += self.client.feed(await self.receive_datagram())
            if self.client.timeout() == 0:
                self.send_all(self.client.handle_timeout())
            self.send_all(self.client.take())
        return self

    def send(self, *messages: bytes) -> None:
        self.send_all(self.client.write(message) for message in messages)

    async def receive(self) -> bytes:
        while not self.messages:
            self.messages += self.client.feed(await self.receive_datagram())
        return self.messages.pop(0)

    async def ask(self, message: bytes) -> bytes:
        self.send(message)
        return await self.receive()

    async def wait_closed(self) -> None:
        """Return when the server has said that it closes."""
        while not self.client.is_closed:
            self.messages += self.client.feed(await self.receive_datagram())

    def start_again(self, client: Client | None = None) -> None:
        """Forget everything but the socket, as a program does that is started again with the same port."""
        self.client = client or Client()
        self.messages = []
        while self.take_datagram() is not None:  # what was for the client before, such as a flight that was sent again
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
