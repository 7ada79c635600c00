"""What a running `esockd open` does for SIGHUP and SIGUSR1."""

from __future__ import annotations

import json
import os
import signal
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trustme

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

AUTHORITY = trustme.CA()
TLS = "tls://127.0.0.1:0"


def write_certificate(file: Path) -> str:
    """A new certificate for localhost; its serial number."""
    certificate = AUTHORITY.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(file))
    return str(ssl._ssl._test_decode_cert(file)["serialNumber"])  # type: ignore[attr-defined]


def serial_number(command: Any, port: int) -> str:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    with command.connect(port) as plain, context.wrap_socket(plain, server_hostname="localhost") as client:
        return str((client.getpeercert() or {})["serialNumber"])


def read_until(command: Any, words: str) -> str:
    """The next line of stderr with these words."""
    while words not in (line := command.process.stderr.readline()):
        assert line, f"no line has {words!r}"
    return str(line)


def test_sighup_reads_certificate_and_key_again(start: Callable[..., Any], tmp_path: Path, loop: str) -> None:
    first = write_certificate(tmp_path / "both.pem")
    command = start("open", "echo", TLS, "--cert", "both.pem", "--loop", loop)
    port = command.read_port()
    assert serial_number(command, port) == first
    second = write_certificate(tmp_path / "both.pem")
    command.signal(signal.SIGHUP)
    told = read_until(command, "SIGHUP")
    assert told == f"SIGHUP: certificate and key of echo {TLS} were read again\n"
    assert serial_number(command, port) == second
    assert command.stop()[0] == 0


def test_sighup_keeps_the_certificate_where_the_new_one_is_bad(start: Callable[..., Any], tmp_path: Path) -> None:
    number = write_certificate(tmp_path / "both.pem")
    command = start("open", "echo", TLS, "--cert", "both.pem")
    port = command.read_port()
    (tmp_path / "both.pem").write_text("nothing")
    command.signal(signal.SIGHUP)
    told = read_until(command, "SIGHUP")
    problem = "--cert both.pem: it holds no certificate in PEM form."
    assert told == f"error: SIGHUP: echo {TLS} keeps its certificate: {problem}\n"
    (tmp_path / "both.pem").unlink()
    (tmp_path / "both.pem").symlink_to("x" * 300)
    command.signal(signal.SIGHUP)
    assert "--cert both.pem: it cannot be read: File name too long." in read_until(command, "SIGHUP")
    assert serial_number(command, port) == number
    assert command.stop()[0] == 0


def test_sighup_without_tls_ends_nothing(start: Callable[..., Any], loop: str) -> None:
    command = start("open", "echo", "127.0.0.1:0", "--loop", loop)
    with command.connect(command.read_port()) as client:
        command.signal(signal.SIGHUP)
        assert read_until(command, "SIGHUP") == "SIGHUP: there is no certificate to read again\n"
        client.sendall(b"still here")
        assert command.receive(client, 10) == b"still here"
    assert command.stop()[0] == 0


def test_sigusr1_writes_the_summary_and_ends_nothing(start: Callable[..., Any], loop: str) -> None:
    command = start("open", "echo", "127.0.0.1:0", "--loop", loop)
    with command.connect(command.read_port()) as client:
        client.sendall(b"hello")
        assert command.receive(client, 5) == b"hello"
        command.signal(signal.SIGUSR1)
        told = read_until(command, "accepted")
        assert told == "echo 127.0.0.1:0: 1 accepted, 0 refused, 5 B in, 5 B out, 0 ended, 1 not ended\n"
        client.sendall(b"again")
        assert command.receive(client, 5) == b"again"
    status, _, err = command.stop()
    assert status == 0
    assert "10 B in, 10 B out" in err


def test_what_signals_ask_for_is_an_event_of_json(start: Callable[..., Any], tmp_path: Path) -> None:
    write_certificate(tmp_path / "both.pem")
    command = start("open", "echo", TLS, "--cert", "both.pem", "--json")
    command.read_line()
    events = []
    for number in (signal.SIGUSR1, signal.SIGHUP):
        command.signal(number)
        events.append(json.loads(command.read_line()))
    assert [event["event"] for event in events] == ["summary", "certificate_read"]
    assert events[0]["listeners"][0]["accepted"] == 0
    assert events[1]["address"] == TLS
    assert command.stop()[0] == 0


def test_what_signals_ask_for_while_the_handler_is_imported_is_done_after_it(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(
        "import sys\n"
        "print('importing', flush=True)\n"
        "sys.stdin.read()\n"
        "async def handle(connection):\n"
        "    await connection.send(b'hello')\n"
    )
    os.mkfifo(tmp_path / "pause")
    command = start("open", "app:handle", "127.0.0.1:0", after="exec <pause")
    with (tmp_path / "pause").open("w"):
        assert command.read_line() == "importing"
        command.signal(signal.SIGUSR1)
        command.signal(signal.SIGHUP)
    with command.connect(command.read_port()) as client:
        assert command.receive(client, 5) == b"hello"
    status, _, err = command.stop()
    assert status == 0
    assert "SIGHUP: there is no certificate to read again\n" in err
    assert err.count("handle 127.0.0.1:0: ") == 2  # the summary that was asked for, and that of the end


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_signals_that_ask_for_no_end_never_end_it(start: Callable[..., Any], number: int) -> None:
    command = start("open", "echo", "127.0.0.1:0", "-q")
    port = command.read_port()
    for _ in range(20):
        command.signal(number)
    with command.connect(port) as client:
        client.sendall(b"hello")
        assert command.receive(client, 5) == b"hello"
    assert command.stop() == (0, "", "")
