"""Clients that do not come in: what is counted and logged of them."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from tests.core.conftest import HEADER, reasons, until
from tests.core.connection.strangers import hello, reset, rest, serving
from tests.core.tls_clients import client_context, dial, run

from esockd_core import ProxyOptions, TlsOptions
from esockd_proxyproto import ProxyHeader, UnixEndpoint, encode

if TYPE_CHECKING:
    from pathlib import Path

    from esockd_core import Handler


pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("sent", [b"", HEADER[:20], HEADER, HEADER + b"\x16\x03\x01"])
async def test_a_timeout_is_logged_once_under_its_own_reason(
    handler: Handler, tls: TlsOptions, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    caplog.set_level("INFO", "esockd_core")
    has_header = sent.startswith(HEADER)
    reason = "handshake_timeout" if has_header else "proxy_timeout"
    proxy = ProxyOptions(header_timeout=10 if has_header else 0.1)
    async with serving(handler, tls=tls, proxy_protocol=proxy, handshake_timeout=0.1) as listener:
        with await run(lambda: dial(listener, sent)) as client:
            await run(lambda: rest(client))
            assert await reasons(listener) == {reason: 1}
    assert [record.getMessage().partition("ends ")[2].partition(":")[0] for record in caplog.records] == [f"({reason})"]


@pytest.mark.parametrize("what", ["a bad header", "no certificate", "a certificate of strangers"])
async def test_clients_that_are_rejected_are_info_lines_that_say_why_and_few_of_them(
    handler: Handler, certificates: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    caplog.set_level("INFO", "esockd_core")
    options: dict[str, Any] = {"proxy_protocol": True}
    reason, why = "proxy_invalid", "invalid PROXY protocol header at byte 0"
    if what != "a bad header":
        tls = TlsOptions(certfile=certificates / "localhost.pem", client_ca=certificates / "ca.pem")
        options, reason, why = {"tls": tls}, "tls_failed", "TLS handshake: "
    context = client_context()
    if what == "a certificate of strangers":
        trustme.CA().issue_cert("stranger").configure_cert(context)

    def come() -> None:
        for _ in range(30):
            with dial(listener) as client, suppress(OSError):
                if what == "a bad header":
                    client.sendall(b"GET / HTTP/1.1\r\n")
                    client.recv(100)
                else:
                    with context.wrap_socket(client, server_hostname="localhost") as secure:
                        secure.recv(100)

    async with serving(handler, **options) as listener:
        await run(come)
        assert await reasons(listener, 30) == {reason: 30}
    lines = [record for record in caplog.records if "lines like" not in record.getMessage()]
    assert 10 <= len(lines) < 30
    assert {record.levelno for record in caplog.records} == {logging.INFO}
    assert {vars(line)["reason"] for line in lines} == {reason}
    assert all(why in line.getMessage() and line.exc_info is None for line in lines)


async def test_a_port_check_that_resets_is_a_counter_and_no_log_line(
    handler: Handler, tls: TlsOptions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "esockd_core")
    async with serving(handler, tls=tls) as listener:
        client = await run(lambda: dial(listener))
        await until(lambda: listener.stats().accepted)
        reset(client)
        assert await reasons(listener) == {"tls_closed": 1}
    assert not caplog.records


async def test_a_reset_in_the_handshake_is_a_failure_and_one_log_line(
    handler: Handler, tls: TlsOptions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "esockd_core")
    async with serving(handler, tls=tls) as listener:
        client = await run(lambda: dial(listener, hello()))
        await run(lambda: client.recv(1))
        reset(client)
        assert await reasons(listener) == {"tls_failed": 1}
    assert len(caplog.records) == 1
    assert "(tls_failed)" in caplog.text


async def test_a_listener_that_is_killed_logs_no_failure_of_those_in_a_handshake(
    handler: Handler, tls: TlsOptions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "esockd_core")
    async with serving(handler, tls=tls) as listener:
        with await run(lambda: dial(listener, hello()[:50])):
            await until(lambda: listener.stats().entering)
            await listener.kill()
            assert listener.stats().shutdown_counts == {"shutdown": 1}
    assert not caplog.records


async def test_no_path_in_a_header_writes_lines_into_a_log(handler: Handler, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "esockd_core")
    path = b"\x00evil\n2026-01-01 root logged in\x1b[2J\xff"
    header = encode(ProxyHeader(source=UnixEndpoint(path), destination=UnixEndpoint(b"/run/x")))
    async with serving(handler, proxy_protocol=True, access_rules=["deny all"]) as listener:
        with await run(lambda: dial(listener, header)) as client:
            await run(lambda: rest(client))
            assert await reasons(listener) == {"source_forbidden": 1}
    assert caplog.records[-1].peer == "@evil\\x0a2026-01-01 root logged in\\x1b[2J\\xff"  # type: ignore[attr-defined]
    assert all("\n" not in record.getMessage() for record in caplog.records)
