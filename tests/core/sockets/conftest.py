"""What the tests of opening share: opening, the text of a refusal, and what is left behind by it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import PATIENCE_S

from esockd_core._address import parse_address
from esockd_core._errors import AddressInUse, CannotBind, EsockdError
from esockd_core._sockets.opening import ListeningSockets, open_sockets

if TYPE_CHECKING:
    from collections.abc import Iterator


async def opened(address: object, **options: Any) -> ListeningSockets:
    return await open_sockets(parse_address(address), **options)


async def refusal(address: object, **options: Any) -> str:
    """What the error says, after checking that it is one of ours, is an OSError, and leaves no descriptor open."""
    before = open_descriptors()
    with pytest.raises((AddressInUse, CannotBind)) as caught:
        await opened(address, **options)
    caught.value.__traceback__ = None
    assert isinstance(caught.value, EsockdError)
    assert isinstance(caught.value, OSError)
    assert open_descriptors() == before
    return str(caught.value)


def open_descriptors() -> list[str]:
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(descriptor.readlink()))
        except FileNotFoundError:
            continue  # the descriptor of this listing itself
    return sorted(link for link in links if link.startswith("socket:") or link.endswith("-lock"))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def exchange(listener: socket.socket) -> tuple[Any, Any]:
    """Connect to a listener; return the server's view of the client's address, and the client's own."""
    with socket.socket(listener.family) as client:
        client.settimeout(PATIENCE_S)
        client.connect(listener.getsockname())
        listener.settimeout(PATIENCE_S)
        accepted, peer = listener.accept()
        with accepted:
            return peer, client.getsockname()


class Intercepted(socket.socket):
    """A socket whose bind can be made to fail, or to act, just before the kernel's."""

    def bind(self, address: Any) -> None:
        self.before_bind(address)
        super().bind(address)

    def before_bind(self, address: Any) -> None:
        raise NotImplementedError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock
