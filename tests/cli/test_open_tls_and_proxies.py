"""`esockd open` with TLS and behind a proxy: the real command, real clients, and what it refuses."""

from __future__ import annotations

import json
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import RunEsockd

TIMEOUT_S = 90
AUTHORITY = trustme.CA()
SERVER = AUTHORITY.issue_cert("localhost", "127.0.0.1")
CLIENT = AUTHORITY.issue_cert("client.example.org")
PRIVATE = load_pem_private_key(SERVER.private_key_pem.bytes(), None)
CERT = ("--cert", "cert.pem", "--key", "key.pem")
TLS = "tls://127.0.0.1:0"
PLAIN = "127.0.0.1:0"
SHOW_SOURCE = """
async def handle(connection):
    await connection.send(f"{connection.peername}\\n".encode())
"""


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> Path:
    """The folder that the command runs in."""
    (tmp_path / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in SERVER.cert_chain_pems))
    SERVER.private_key_pem.write_to_path(tmp_path / "key.pem")
    SERVER.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    CLIENT.private_key_pem.write_to_path(tmp_path / "other.pem")
    AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "junk.pem").write_text("junk\n")
    (tmp_path / "empty.txt").write_text("\nright\n")
    (tmp_path / "wrong.txt").write_text("wrong\n")
    (tmp_path / "right.txt").write_text("right\r\nsomething else\n")
    for name, form in (("pkcs8.pem", PrivateFormat.PKCS8), ("old.pem", PrivateFormat.TraditionalOpenSSL)):
        (tmp_path / name).write_bytes(PRIVATE.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"right")))
    (tmp_path / "app.py").write_text(SHOW_SOURCE)
    return tmp_path


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def echo_over_tls(plain: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Speak TLS on a connection, and have one message echoed."""
    client = context.wrap_socket(plain, server_hostname="localhost")
    try:
        client.sendall(b"hello")
        received = b""
        while len(received) < 5 and (data := client.recv(5 - len(received))):
            received += data
        assert received == b"hello"
    except BaseException:
        client.close()
        raise
    return client


def test_plain_and_tls_addresses_stand_side_by_side(start: Callable[..., Any], loop: str) -> None:
    command = start("open", "echo", PLAIN, TLS, *CERT, "--alpn", "mqtt", "--alpn", "h2", "--loop", loop)
    plain_port, line = command.read_port(), command.read_line()
    assert line.startswith("echo listening on tls://127.0.0.1:")
    with command.connect(plain_port) as client:
        client.sendall(b"plain")
        assert command.receive(client, 5) == b"plain"
    context = client_context()
    context.set_alpn_protocols(["h2", "mqtt"])
    with command.connect(int(line.rpartition(":")[2])) as plain, echo_over_tls(plain, context) as client:
        assert (client.version(), client.selected_alpn_protocol()) == ("TLSv1.3", "mqtt")
    status, _, err = command.stop()
    assert status == 0
    assert f"echo {PLAIN}: 1 accepted" in err
    assert f"echo {TLS}: 1 accepted" in err


def test_one_file_may_hold_certificate_and_key(start: Callable[..., Any]) -> None:
    command = start("open", "echo", TLS, "--cert", "both.pem")
    with command.connect(command.read_port()) as plain, echo_over_tls(plain, client_context()):
        pass
    assert command.stop()[0] == 0


@pytest.mark.parametrize("key", ["pkcs8.pem", "old.pem"])
@pytest.mark.parametrize("wrong_one", [None, "wrong"])
def test_the_password_of_a_key_comes_from_a_file_before_the_environment(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, key: str, wrong_one: str | None
) -> None:
    if wrong_one is not None:
        monkeypatch.setenv("ESOCKD_KEY_PASSWORD", wrong_one)
    command = start("open", "echo", TLS, "--cert", "cert.pem", "--key", key, "--key-password-file", "right.txt")
    with command.connect(command.read_port()) as plain, echo_over_tls(plain, client_context()):
        pass
    assert command.stop()[0] == 0


def test_the_password_of_a_key_comes_from_the_environment(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESOCKD_KEY_PASSWORD", "right")
    command = start("open", "echo", TLS, "--cert", "cert.pem", "--key", "pkcs8.pem")
    with command.connect(command.read_port()) as plain, echo_over_tls(plain, client_context()):
        pass
    assert command.stop()[0] == 0


@pytest.mark.parametrize("key", ["pkcs8.pem", "old.pem"])
@pytest.mark.parametrize("password", ["", "wrong"])
def test_an_encrypted_key_without_its_password_is_refused(
    esockd: RunEsockd, monkeypatch: pytest.MonkeyPatch, key: str, password: str
) -> None:
    """An empty variable counts as none. Nobody is asked, and no password is repeated."""
    monkeypatch.setenv("ESOCKD_KEY_PASSWORD", password)
    status, out, err = esockd("open", "echo", TLS, "--cert", "cert.pem", "--key", key)
    assert (status, out) == (2, "")
    if password:
        assert f"password: it does not open the private key in {key}." in err
        assert "wrong" not in err
    else:
        assert f"the private key in {key} is encrypted" in err
        assert "Give --key-password-file FILE, or set ESOCKD_KEY_PASSWORD." in err
    assert err.count("\n") == 1


def test_a_loopback_port_with_tls_is_told_how_to_open_to_all(start: Callable[..., Any]) -> None:
    command = start("open", "echo", "tls://0", *CERT)
    port = command.read_port()
    assert f"tls://*:{port} opens it to all" in command.stop()[2]


def test_client_ca_requires_a_certificate_of_that_authority(start: Callable[..., Any]) -> None:
    command = start("open", "echo", TLS, *CERT, "--client-ca", "ca.pem")
    port = command.read_port()
    with command.connect(port) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
        echo_over_tls(plain, client_context())
    context = client_context()
    CLIENT.configure_cert(context)
    with command.connect(port) as plain, echo_over_tls(plain, context):
        pass
    assert command.stop()[0] == 0


def test_tls_min_refuses_older_versions(start: Callable[..., Any]) -> None:
    command = start("open", "echo", TLS, *CERT, "--tls-min", "1.3")
    context = client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with command.connect(command.read_port()) as plain, pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        echo_over_tls(plain, context)
    assert command.stop()[0] == 0


def test_a_client_that_never_shakes_hands_is_closed(start: Callable[..., Any]) -> None:
    command = start("open", "echo", TLS, *CERT, "--handshake-timeout", "100ms")
    with command.connect(command.read_port()) as client:
        assert command.receive(client, 1) == b""
    assert command.stop()[0] == 0


def test_max_handshaking_refuses_one_more(start: Callable[..., Any]) -> None:
    command = start("open", "echo", TLS, *CERT, "--max-handshaking", "1", "--json")
    port = json.loads(command.read_line())["port"]
    with command.connect(port), command.connect(port) as second:
        assert command.receive(second, 1) == b""
    _, out, _ = command.stop()
    assert sum(json.loads(out.splitlines()[-1])["listeners"][0]["refused"].values()) == 1


@pytest.mark.parametrize("verbose", [False, True])
def test_server_names_that_are_not_ascii_do_not_fill_the_log(start: Callable[..., Any], verbose: bool) -> None:
    """Python's ssl would write five lines for each."""
    command = start("open", "echo", TLS, *CERT, *(["-v"] if verbose else []))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = client_context()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="aaaa.example.org").do_handshake()
    hello = outgoing.read().replace(b"aaaa.example.org", b"aa\xff\xfe.example.org")
    port = command.read_port()
    for _ in range(100):
        with command.connect(port) as client:
            client.sendall(hello)
            assert command.receive(client, 1)[:1] == b"\x15"  # an alert
    status, _, err = command.stop()
    assert status == 0
    assert "Exception ignored" not in err
    assert ("ends (tls_failed)" in err) is verbose
    assert len(err.splitlines()) < 60  # of each kind ten at once, then one a second


def test_openssl_agrees(start: Callable[..., Any], files: Path, require_tool: Callable[[str], str]) -> None:
    openssl = require_tool("openssl")
    command = start("open", "static:bye\n", TLS, *CERT, "--alpn", "mqtt")
    arguments = ["-connect", f"127.0.0.1:{command.read_port()}", "-CAfile", "ca.pem", "-verify_return_error"]
    done = subprocess.run(
        [openssl, "s_client", *arguments, "-verify_ip", "127.0.0.1", "-alpn", "mqtt", "-ign_eof"],
        cwd=files,
        input="",
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert "Verify return code: 0 (ok)" in done.stdout, done.stderr
    assert "ALPN protocol: mqtt" in done.stdout
    assert "bye\n" in done.stdout
    assert command.stop()[0] == 0


def test_a_proxy_header_names_the_source(start: Callable[..., Any], loop: str) -> None:
    command = start("open", "app:handle", PLAIN, "--proxy-protocol", "--proxy-trust", "127.0.0.0/8", "--loop", loop)
    with command.connect(command.read_port()) as client:
        client.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n")
        assert b"192.0.2.7" in command.receive(client, 1000)
    assert command.stop()[0] == 0


def test_a_proxy_header_comes_before_the_handshake(start: Callable[..., Any]) -> None:
    command = start("open", "echo", TLS, *CERT, "--proxy-protocol")
    with command.connect(command.read_port()) as plain:
        plain.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n")
        with echo_over_tls(plain, client_context()):
            pass
    assert command.stop()[0] == 0


def test_a_rule_judges_the_source_that_a_proxy_names(start: Callable[..., Any]) -> None:
    command = start("open", "echo", PLAIN, "--proxy-protocol", "--deny", "192.0.2.7")
    with command.connect(command.read_port()) as client:
        client.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n")
        assert command.receive(client, 1) == b""
    assert command.stop()[0] == 0


def test_a_peer_that_is_no_trusted_proxy_is_refused(start: Callable[..., Any]) -> None:
    trust = ("--proxy-trust", "10.0.0.0/8", "--proxy-trust", "2001:db8::/32")
    command = start("open", "echo", PLAIN, "--proxy-protocol", *trust, "--json")
    with command.connect(json.loads(command.read_line())["port"]) as client:
        assert command.receive(client, 1) == b""
    _, out, _ = command.stop()
    summary = json.loads(out.splitlines()[-1])["listeners"][0]
    assert (summary["accepted"], summary["refused"]) == (0, {"closed_forbidden": 1})


def test_a_proxy_that_sends_no_header_is_closed(start: Callable[..., Any]) -> None:
    command = start("open", "echo", PLAIN, "--proxy-protocol", "--proxy-timeout", "100ms")
    with command.connect(command.read_port()) as client:
        assert command.receive(client, 1) == b""
    assert command.stop()[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([TLS], f"{TLS} needs a certificate. Give --cert FILE"),
        ([TLS, "--key", "key.pem"], f"{TLS} needs a certificate. Give --cert FILE"),
        ([PLAIN, *CERT], f'--cert is for tls://HOST:PORT, and no address is one. Did you mean "{TLS}"?'),
        ([PLAIN, "--key", "key.pem"], "--key is for tls://HOST:PORT"),
        ([PLAIN, "--key-password-file", "right.txt"], "--key-password-file is for tls://HOST:PORT"),
        ([PLAIN, "--client-ca", "ca.pem"], "--client-ca is for tls://HOST:PORT"),
        ([PLAIN, "--alpn", "h2"], "--alpn is for tls://HOST:PORT"),
        ([PLAIN, "--tls-min", "1.3"], "--tls-min is for tls://HOST:PORT"),
        ([PLAIN, "--handshake-timeout", "5s"], "--handshake-timeout is for tls://HOST:PORT"),
        ([PLAIN, "--max-handshaking", "5"], "--max-handshaking does nothing without"),
        ([TLS, "--cert", "nowhere.pem"], "--cert nowhere.pem: it does not exist"),
        ([TLS, "--cert", "cert.pem", "--key", "nowhere.pem"], "--key nowhere.pem: it does not exist"),
        ([TLS, *CERT, "--client-ca", "nowhere.pem"], "--client-ca nowhere.pem: it does not exist"),
        ([TLS, "--cert", "junk.pem"], "--cert junk.pem: it holds no certificate in PEM form."),
        ([TLS, "--cert", "cert.pem"], "--key: cert.pem holds the certificate only. Give --key FILE as well."),
        (
            [TLS, "--cert", "cert.pem", "--key", "other.pem"],
            "--key other.pem: the private key does not belong to the certificate in cert.pem.",
        ),
        ([TLS, *CERT, "--alpn", ""], "--alpn '': it takes a name of 1 to 255 ASCII characters"),
        ([TLS, *CERT, "--key-password-file", "nowhere.txt"], "--key-password-file nowhere.txt: No such file"),
        ([TLS, *CERT, "--key-password-file", "empty.txt"], "--key-password-file empty.txt: its first line is empty."),
        (
            [TLS, "--cert", "cert.pem", "--key", "pkcs8.pem", "--key-password-file", "wrong.txt"],
            "password: it does not open the private key in pkcs8.pem.",
        ),
        ([TLS, *CERT, "--tls-min", "1.4"], "--tls-min 1.4: it takes 1.0, 1.1, 1.2 or 1.3."),
        (
            [TLS, *CERT, "--handshake-timeout", "none"],
            "--handshake-timeout none: it takes a duration such as 30s, more than 0.",
        ),
        ([TLS, *CERT, "--max-handshaking", "0"], "--max-handshaking 0: it takes a whole number, 1 or more"),
        ([PLAIN, "--proxy-trust", "10.0.0.0/8"], "--proxy-trust does nothing without --proxy-protocol."),
        ([PLAIN, "--proxy-timeout", "5s"], "--proxy-timeout does nothing without --proxy-protocol."),
        ([PLAIN, "--proxy-protocol", "--proxy-trust", "10.0.0.0/33"], 'bad CIDR "10.0.0.0/33"'),
        ([PLAIN, "--proxy-protocol", "--proxy-timeout", "5"], "--proxy-timeout 5: it takes a duration such as 30s"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_status_2(esockd: RunEsockd, arguments: list[str], message: str) -> None:
    status, out, err = esockd("open", "echo", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
