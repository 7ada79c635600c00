"""Two changes of one listener at the same time: neither undoes the other, also if one fails."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, cast

import anyio
import pytest
from tests.core.conftest import echo, settle
from tests.core.tls_clients import client_context, dial, run
from tests.ports import steady_address

from esockd_core import CannotBind, Listener, TlsOptions, open_listener
from esockd_core._listening.intake import Intake

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from esockd_core._address import Address
    from esockd_core._sockets.opening import ListeningSockets

pytestmark = pytest.mark.anyio

NAMES = ("localhost", "other.example.org")


async def shown(listener: Listener) -> str:
    """The name in the certificate that a client is shown."""

    def look() -> str:
        context = client_context()
        context.check_hostname = False
        with context.wrap_socket(dial(listener)) as client:
            certificate = cast("dict[str, list[tuple[str, str]]]", client.getpeercert())
        return certificate["subjectAltName"][0][1]

    return cast("str", await run(look))


class Reopening:
    """Holds a reopening where its old sockets are closed and its new ones are not open yet."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, fails: bool) -> None:
        self.begun, self.may_go_on = anyio.Event(), anyio.Event()
        open_sockets = Intake.open_sockets

        async def hold(intake: Intake, address: Address) -> ListeningSockets:
            self.begun.set()
            await self.may_go_on.wait()
            if fails:
                raise CannotBind(errno.EADDRNOTAVAIL, "for once")
            return await open_sockets(intake, address)

        monkeypatch.setattr(Intake, "open_sockets", hold)


@pytest.fixture
def options(certificates: Path) -> dict[str, TlsOptions]:
    return {name: TlsOptions(certfile=certificates / f"{name}.pem") for name in NAMES}


@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
async def test_certificates_exchanged_while_options_change_stay_exchanged(
    options: dict[str, TlsOptions], monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    async def change_options() -> None:
        if fails:
            with pytest.raises(CannotBind):
                await listener.set_options(reopen=True, tcp={"reuse_port": True}, proxy_protocol="use")
        else:
            await listener.set_options(reopen=True, tcp={"reuse_port": True}, proxy_protocol="use")

    with anyio.fail_after(20):
        async with open_listener("echo", f"tls://{steady_address()}", echo, tls=options["localhost"]) as listener:
            with monkeypatch.context() as patch:
                reopening = Reopening(patch, fails=fails)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(change_options)
                    await reopening.begun.wait()
                    tasks.start_soon(listener.set_tls, options["other.example.org"])
                    await settle()
                    reopening.may_go_on.set()
            await agree(listener, options["other.example.org"], reuse_port=not fails)


@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
async def test_options_that_bring_certificates_and_a_reopening_are_in_force_as_a_whole_or_not_at_all(
    options: dict[str, TlsOptions], monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    async def change_options() -> None:
        if fails:
            with pytest.raises(CannotBind):
                await listener.set_options(reopen=True, tcp={"reuse_port": True}, tls=options["other.example.org"])
        else:
            await listener.set_options(reopen=True, tcp={"reuse_port": True}, tls=options["other.example.org"])

    with anyio.fail_after(20):
        async with open_listener("echo", f"tls://{steady_address()}", echo, tls=options["localhost"]) as listener:
            with monkeypatch.context() as patch:
                reopening = Reopening(patch, fails=fails)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(change_options)
                    await reopening.begun.wait()
                    tasks.start_soon(listener.set_tls)  # reads the files of what is in force then
                    await settle()
                    reopening.may_go_on.set()
            await agree(listener, options["localhost" if fails else "other.example.org"], reuse_port=not fails)


async def agree(listener: Listener, tls: TlsOptions, *, reuse_port: bool) -> None:
    """Check that the options that are told are those that new clients meet."""
    assert listener.options.tls is not None
    assert listener.options.tls.certfile == tls.certfile
    assert listener.options.tcp.reuse_port is reuse_port
    if listener.state == "suspended":
        await listener.reopen()
        await listener.resume()
    context: ssl.SSLContext = listener.options.tls.context
    assert listener._site.entrance is not None
    assert listener._site.entrance.context is context
    assert await shown(listener) == ("localhost" if "localhost" in str(tls.certfile) else "other.example.org")
