"""What a forwarder is told: upstreams, timeouts and TLS; refused when built if it makes no sense."""

from __future__ import annotations

import dataclasses
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest
import trustme

from esockd_core import InvalidOption, TlsCertificate, UpstreamTlsOptions, parse_address
from esockd_core.handlers import ForwardHandler
from esockd_core.testing import memory_connection

AUTHORITY = trustme.CA()


@pytest.mark.parametrize(
    ("upstreams", "read"),
    [
        ("127.0.0.1:6379", ["127.0.0.1:6379"]),
        (("127.0.0.1", 6379), ["127.0.0.1:6379"]),
        (6379, ["6379"]),
        ("tls://[::1]:6379", ["tls://[::1]:6379"]),
        ("unix:/run/redis", ["unix:/run/redis"]),
        (Path("/run/redis"), ["unix:/run/redis"]),
        (parse_address("redis.test:1"), ["redis.test:1"]),
        (["a.test:1", ("b.test", 2)], ["a.test:1", "b.test:2"]),
        ((each for each in ("a.test:1", "b.test:2")), ["a.test:1", "b.test:2"]),
    ],
)
def test_upstreams_are_addresses(upstreams: Any, read: list[str]) -> None:
    assert [str(upstream) for upstream in ForwardHandler(upstreams).upstreams] == read


@pytest.mark.parametrize(
    ("upstreams", "options", "message"),
    [
        ([], {}, "upstreams is []: it takes one address, or several"),
        ("", {}, "upstreams is '': the port is missing"),
        (":6379", {}, "upstreams is ':6379': the host is missing. Write \"host:6379\""),
        ("tls://:6379", {}, "the host is missing"),
        ("localhost", {}, "upstreams is 'localhost': the port is missing"),
        ("localhost:0", {}, "nothing can connect to it"),
        ("localhost:65536", {}, "port 65536 is out of range"),
        ("*:80", {}, "upstreams is '*:80': nothing can connect to it"),
        ("http://localhost:80", {}, 'the scheme "http" is unknown'),
        ("systemd:name", {}, "nothing can connect to it"),
        (None, {}, "upstreams is None: it takes a port"),
        (True, {}, "upstreams is True"),
        (b"localhost:1", {}, "upstreams is b'localhost:1'"),
        (6379, {"connect_timeout": 0}, "connect_timeout is 0: it takes seconds, more than 0."),
        (6379, {"connect_timeout": None}, "connect_timeout is None"),
        (6379, {"half_closed_timeout": -1}, "half_closed_timeout is -1"),
        (6379, {"send_proxy": 1}, 'send_proxy is 1: it takes "v1" or "v2", or None.'),
        (6379, {"tls": UpstreamTlsOptions(verify=False)}, 'tls: it does nothing for 6379. Did you mean "tls://6379"?'),
        ("tls://unix:/run/redis", {}, "tls.server_name is None: it is needed for tls://unix:/run/redis"),
        ("tls://a.test:1", {"tls": UpstreamTlsOptions(server_name=".a")}, "tls.server_name is '.a': "),
    ],
)
def test_what_makes_no_sense_is_refused(upstreams: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        ForwardHandler(upstreams, **options)
    assert message in str(refused.value)


def test_a_socket_is_no_upstream() -> None:
    with socket.socket() as unbound, pytest.raises(InvalidOption):
        ForwardHandler(unbound)


def test_a_forwarder_is_frozen() -> None:
    handler = ForwardHandler(6379)
    with pytest.raises(dataclasses.FrozenInstanceError):
        handler.connect_timeout = 1  # type: ignore[misc]
    assert handler == ForwardHandler(6379)
    assert "6379" in repr(handler)
    assert dataclasses.replace(handler, send_proxy="v2") == ForwardHandler(6379, send_proxy="v2")


@pytest.mark.anyio
async def test_a_connection_in_memory_cannot_be_forwarded() -> None:
    with pytest.raises(TypeError, match="only connections with a socket can be forwarded"):
        await ForwardHandler(6379)(memory_connection())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"verify": 1}, "tls.verify is 1: it takes True or False."),
        (
            {"verify": False, "ca_file": "/etc/passwd"},
            "tls.ca_file is '/etc/passwd': it does nothing with verify=False",
        ),
        ({"server_name": ""}, "server_name is ''"),
        ({"server_name": 5}, "server_name is 5"),
        ({"certificate": "file.pem"}, "it takes a TlsCertificate"),
        ({"ca_file": "nowhere.pem"}, "tls.ca_file is 'nowhere.pem': it does not exist"),
        (
            {"certificate": TlsCertificate(certfile="nowhere.pem")},
            "tls.certificate.certfile is 'nowhere.pem': it does not exist",
        ),
        ({"alpn": "h2"}, "it takes names of 1 to 255 ASCII characters"),
        ({"alpn": [""]}, "it takes names of 1 to 255 ASCII characters"),
    ],
)
def test_tls_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        UpstreamTlsOptions(**options)
    assert message in str(refused.value)


def test_a_file_without_certificates_is_no_authority(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(InvalidOption, match="holds no certificate in PEM form"):
        UpstreamTlsOptions(ca_file=tmp_path / "ca.pem")


def test_tls_options_are_read_again_in_another_process(tmp_path: Path) -> None:
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    copy = pickle.loads(pickle.dumps(UpstreamTlsOptions(ca_file=tmp_path / "ca.pem", alpn=["mqtt"])))
    assert copy.alpn == ("mqtt",)
    assert copy.context.check_hostname
