"""TLS through `ListenerControl`: facts of connections, files read again, and certificates exchanged."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import echo
from tests.core.tls_clients import AUTHORITY, client_context, dial, run

from esockd_core import InvalidOption, Listener, TlsOptions, open_listener

if TYPE_CHECKING:
    from pathlib import Path

    from tests.core.control.conftest import ControlOf

pytestmark = pytest.mark.anyio


async def names_shown(listener: Listener, server: str = "localhost") -> list[str]:
    """The names in the certificate that a client is shown."""

    def look() -> Any:
        with client_context().wrap_socket(dial(listener), server_hostname=server) as client:
            return client.getpeercert()

    certificate = await run(look)
    return list({name for kind, name in certificate["subjectAltName"] if kind == "DNS"})


async def test_the_facts_of_a_client_are_told(certificates: Path, control_of: ControlOf) -> None:
    options = TlsOptions(certfile=certificates / "localhost.pem", client_ca=certificates / "ca.pem", alpn=["mqtt"])
    context = client_context()
    context.set_alpn_protocols(["mqtt"])
    AUTHORITY.issue_cert("sensor@example.org", common_name="sensor 7").configure_cert(context)

    def hello(listener: Listener) -> ssl.SSLSocket:
        client = context.wrap_socket(dial(listener), server_hostname="localhost")
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
        return client

    with anyio.fail_after(20):
        async with (
            open_listener("echo", "tls://127.0.0.1:0", echo, tls=options) as listener,
            control_of(listener) as control,
        ):
            with await run(lambda: hello(listener)):
                [connection] = (await control.list_connections()).connections
            assert connection.tls is not None
            assert (connection.tls.alpn, connection.tls.server_name) == ("mqtt", "localhost")
            certificate = connection.tls.peer_certificate
            assert certificate is not None
            assert (certificate.common_name, certificate.is_verified) == ("sensor 7", True)
            assert certificate.not_after is not None
            assert certificate.der is not None
            assert ssl.DER_cert_to_PEM_cert(certificate.der).startswith("-----BEGIN")
            assert (await control.get_stats()).handshakes.count == 1


async def test_files_are_read_again(certificates: Path, tmp_path: Path, control_of: ControlOf) -> None:
    live = tmp_path / "live.pem"
    live.write_bytes((certificates / "localhost.pem").read_bytes())
    with anyio.fail_after(20):
        async with (
            open_listener("echo", "tls://127.0.0.1:0", echo, tls=TlsOptions(certfile=live)) as listener,
            control_of(listener) as control,
        ):
            assert await names_shown(listener) == ["localhost"]
            live.write_bytes((certificates / "other.example.org.pem").read_bytes())
            await control.set_tls()
            assert await names_shown(listener, "other.example.org") == ["other.example.org"]
            live.write_text("rubbish")
            with pytest.raises(InvalidOption) as caught:
                await control.set_tls()
            assert (caught.value.option or "").startswith("tls")
            live.unlink()
            live.symlink_to("x" * 300)  # the kernel looks up no such name, as in a folder that may not be searched
            with pytest.raises(InvalidOption, match="it cannot be read: File name too long"):
                await control.set_tls()
            assert await names_shown(listener, "other.example.org") == ["other.example.org"]
        async with open_listener("echo", "127.0.0.1:0", echo) as plain, control_of(plain) as control:
            with pytest.raises(InvalidOption, match="TLS"):
                await control.set_tls()


async def test_certificates_are_exchanged_and_shown_without_their_password(
    certificates: Path, control_of: ControlOf
) -> None:
    with anyio.fail_after(20):
        async with (
            open_listener(
                "echo",
                "tls://127.0.0.1:0",
                echo,
                tls=TlsOptions(certfile=certificates / "localhost.pem", password="hunter2"),
            ) as listener,
            control_of(listener) as control,
        ):
            other = str(certificates / "other.example.org.pem")
            sni: Any = {"other.example.org": {"certfile": other}}  # as it comes over a socket, or from a file
            plan = await control.set_options(tls={"sni": sni})
            assert [change.name for change in plan.changes] == ["tls"]
            assert await names_shown(listener) == ["localhost"]
            assert await names_shown(listener, "other.example.org") == ["other.example.org"]
            options = await control.get_options()
            assert options["tls.certfile"] == str(certificates / "localhost.pem")
            assert options["tls.sni"] == {"other.example.org": {"certfile": other, "keyfile": None}}
            assert "tls.password" not in options
            assert "hunter2" not in str((options, plan))
            assert listener.options.tls is not None
            assert listener.options.tls.password == "hunter2"
