"""What a forwarder can be told, and what it refuses to be told."""

from __future__ import annotations

import dataclasses
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest
import trustme

from esockd_core import InvalidOption, TlsCertificate, UpstreamTlsOptions, parse_address
from esockd_core._upstreams import Upstream, Upstreams
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
        ([], {}, "there is no upstream"),
        ("", {}, "bad upstream"),
        (":6379", {}, 'bad upstream ":6379": the host is missing. Use "host:6379"'),
        ("tls://:6379", {}, "the host is missing"),
        ("localhost", {}, 'bad upstream "localhost": the port is missing'),
        ("localhost:0", {}, "nothing can connect to it"),
        ("localhost:65536", {}, "port 65536 is out of range"),
        ("*:80", {}, 'bad upstream "*:80": nothing can connect to it'),
        ("http://localhost:80", {}, 'unknown scheme "http"'),
        ("udp://localhost:53", {}, "nothing can connect to it"),
        ("systemd:name", {}, "nothing can connect to it"),
        (None, {}, "bad upstream None"),
        (True, {}, "bad upstream True"),
        (b"localhost:1", {}, "bad upstream b'localhost:1'"),
        (6379, {"connect_timeout": 0}, "connect_timeout is 0; it takes seconds, more than 0."),
        (6379, {"connect_timeout": None}, "connect_timeout is None"),
        (6379, {"half_closed_timeout": -1}, "half_closed_timeout is -1"),
        (6379, {"send_proxy": 1}, 'send_proxy is 1; it is "v1", "v2" or None.'),
        (6379, {"tls": UpstreamTlsOptions(verify=False)}, "tls does nothing for 6379: write tls://6379"),
        ("tls://unix:/run/redis", {}, "whose certificate is it to have?"),
        ("tls://a.test:1", {"tls": UpstreamTlsOptions(server_name=".a")}, "server_name '.a' is none"),
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
        ({"verify": 1}, "verify is 1; it is True or False."),
        ({"verify": False, "ca_file": "ca.pem"}, "ca_file does nothing with verify=False"),
        ({"server_name": ""}, "server_name is ''"),
        ({"server_name": 5}, "server_name is 5"),
        ({"certificate": "file.pem"}, "it takes a TlsCertificate"),
        ({"ca_file": "nowhere.pem"}, "ca_file nowhere.pem does not exist"),
        ({"certificate": TlsCertificate(certfile="nowhere.pem")}, "certfile nowhere.pem does not exist"),
        ({"alpn": "h2"}, "it takes several names"),
        ({"alpn": [""]}, "a name has 1 to 255 ASCII characters"),
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


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("esockd_core._upstreams.time.monotonic", clock)
    return clock


def upstreams_of(*names: str) -> tuple[list[Upstream], Upstreams]:
    every = [Upstream(parse_address(f"{name}:1"), None) for name in names]
    return every, Upstreams(every, 5.0)


def names(upstreams: Upstreams) -> str:
    return "".join(upstream.address.host or "" for upstream in upstreams.in_order())


def test_an_upstream_that_failed_stands_behind_the_others_for_a_second(clock: Clock) -> None:
    (a, _, _), upstreams = upstreams_of("a", "b", "c")
    assert names(upstreams) == "abc"
    a.failed()
    assert names(upstreams) == "bca"
    clock.now += 0.999
    assert names(upstreams) == "bca"
    clock.now += 0.001
    assert names(upstreams) == "abc"  # this client tries it
    assert names(upstreams) == "bca"  # and these go on without until more is known
    clock.now += 5.0
    assert names(upstreams) == "abc"
    a.is_failing = False
    assert names(upstreams) == "abc"
    assert names(upstreams) == "abc"


def test_when_all_failed_all_are_tried(clock: Clock) -> None:
    every, upstreams = upstreams_of("a", "b")
    for upstream in every:
        upstream.failed()
    assert names(upstreams) == "ab"
