"""`esockd open` on dtls:// addresses, with certificates and with pre-shared keys."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import trustme

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import RunEsockd

DTLS = "dtls://127.0.0.1:0"
CERT = ("--cert", "cert.pem", "--key", "key.pem")
KEY = "00112233445566778899aabbccddeeff"


TIMEOUT_S = 90.0
AUTHORITY = trustme.CA()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The folder that the command runs in."""
    issued = AUTHORITY.issue_cert("localhost", "127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path


def talk(openssl: str, port: int, *options: str) -> str:
    """All that s_client prints while it gets an echo."""
    command = [openssl, "s_client", "-dtls1_2", "-connect", f"127.0.0.1:{port}", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hello\n")
        process.stdin.flush()
        output = b""
        for line in process.stdout:
            output += line
            if line == b"hello\n":
                process.stdin.close()
        process.wait(TIMEOUT_S)
    return output.decode(errors="replace")


def test_an_echo_by_certificate(
    start: Callable[..., Any], files: Path, loop: str, require_tool: Callable[[str], str]
) -> None:
    openssl = require_tool("openssl")
    command = start("open", "echo", DTLS, *CERT, "--alpn", "coap", "--loop", loop)
    port = command.read_port()
    trust = ("-CAfile", str(files / "ca.pem"), "-verify_return_error", "-alpn", "coap")
    output = talk(openssl, port, *trust)
    assert "Verify return code: 0 (ok)" in output
    assert "ALPN protocol: coap" in output
    status, _, err = command.stop()
    assert status == 0
    assert "1 accepted, 0 refused, 6 B in, 6 B out, 1 ended (normal 1)" in err


def test_an_echo_by_key(start: Callable[..., Any], files: Path, require_tool: Callable[[str], str]) -> None:
    openssl = require_tool("openssl")
    (files / "keys").write_text(f"sensor 7:{KEY}\n")
    command = start("open", "echo", DTLS, "--psk-file", "keys")
    port = command.read_port()
    assert "hello" in talk(openssl, port, "-psk_identity", "sensor 7", "-psk", KEY)
    assert "unknown psk identity" in talk(openssl, port, "-psk_identity", "sensor 8", "-psk", KEY)
    (files / "keys").write_text(f"sensor 8:{KEY}\n")
    command.signal(signal.SIGHUP)
    while "were read again" not in command.process.stderr.readline():
        assert command.process.poll() is None
    assert "hello" in talk(openssl, port, "-psk_identity", "sensor 8", "-psk", KEY)
    assert command.stop()[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([DTLS], "dtls://127.0.0.1:0 needs a certificate or pre-shared keys. Give --cert FILE"),
        ([DTLS, "--cert", "missing.pem"], "--cert missing.pem: it does not exist"),
        ([DTLS, "--cert", "cert.pem"], "Give --key FILE as well."),
        ([DTLS, "--psk-file", "missing"], "--psk-file missing: it does not exist (looked from "),
        ([DTLS, "--psk-file", "cert.pem"], "line 1 is not an identity, a colon and a key in hexadecimal"),
        ([DTLS, *CERT, "--tls-min", "1.3"], "--tls-min is for tls://HOST:PORT, and no address is one"),
        (["udp://127.0.0.1:0", "--psk-file", "cert.pem"], "--psk-file is for dtls://HOST:PORT, and no address is one"),
    ],
)
def test_what_does_not_go_together_is_refused(esockd: RunEsockd, files: Path, arguments: list[str], words: str) -> None:
    status, _, err = esockd("open", "echo", *arguments)
    assert status == 2
    assert words in err


def test_an_echo_on_every_address_is_no_amplifier(start: Callable[..., Any], files: Path) -> None:
    command = start("open", "echo", "dtls://*:0", *CERT)
    command.read_port()
    assert command.stop()[0] == 0
