"""`esockd open` on udp:// addresses: what it serves, what it refuses, and what other commands show of it."""

from __future__ import annotations

import json
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.cli.running import Instance
from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import RunEsockd

TIMEOUT_S: Final = 60.0


@contextmanager
def client_of(port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(TIMEOUT_S)
        client.connect(("127.0.0.1", port))
        yield client


def ask(port: int, datagram: bytes) -> bytes:
    with client_of(port) as client:
        client.send(datagram)
        return client.recv(65_536)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_echo_echoes_datagrams_on_every_loop_and_sums_them_up(start: Callable[..., Any], loop: str) -> None:
    command = start("open", "echo", "udp://127.0.0.1:0", "--loop", loop)
    port = command.read_port()
    with client_of(port) as one, client_of(port) as other:
        for client, datagram in ((one, b"hello"), (other, b"")):
            client.send(datagram)
            assert client.recv(65_536) == datagram
    status, _, err = command.stop()
    assert status == 0
    assert "echo udp://127.0.0.1:0: 2 accepted, 0 refused" in err
    assert "2 datagrams in, 2 out, 0 dropped" in err


@pytest.mark.parametrize(
    ("handler", "question", "answer"),
    [("static:hello", b"x", b"hello"), ("chargen", b"", b' !"#$%'), ("daytime", b"", b"-UTC\r\n")],
)
def test_small_handlers_answer_each_datagram(
    start: Callable[..., Any], handler: str, question: bytes, answer: bytes
) -> None:
    command = start("open", handler, "udp://127.0.0.1:0")
    port = command.read_port()
    for _ in range(2):
        assert answer in ask(port, question)


def test_one_command_forwards_datagrams_and_streams_to_the_same_port(start: Callable[..., Any]) -> None:
    upstream = start("open", "echo", "udp://127.0.0.1:0", "127.0.0.1:0", "--no-control")
    port = upstream.read_port()
    command = start("open", f"forward:127.0.0.1:{port}", "udp://127.0.0.1:0", "--no-control")
    assert ask(command.read_port(), b"hello") == b"hello"
    status, _, err = command.stop()
    assert status == 0
    assert "1 datagrams in, 1 out, 0 dropped" in err


def test_a_health_check_is_answered(start: Callable[..., Any]) -> None:
    command = start("open", "discard", "udp://127.0.0.1:0", "--health-check", "ping=pong")
    assert ask(command.read_port(), b"ping") == b"pong"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["echo", "udp://*:0"], "the handler echo answers whoever asks on udp://*:0"),
        (["chargen", "udp://0.0.0.0:0", "--deny", "10.0.0.0/8"], "Name who may ask with --allow NETWORK"),
        (["static:x", "udp://[::]:0"], "it would send to a victim"),
        (["discard", "udp://*:0", "--health-check", "a=bb"], "--health-check answers with more than it was asked"),
        (["echo", "udp://127.0.0.1:0", "--backlog", "5"], "--backlog is for streams"),
        (["echo", "udp://127.0.0.1:0", "--tcp-option", "nodelay=off"], "--tcp-option is for streams"),
        (["echo", "udp://127.0.0.1:0", "--when-full", "backlog"], "--when-full is for streams"),
        (["echo", "127.0.0.1:0", "--max-packet-rate", "5/s"], "--max-packet-rate is for udp://HOST:PORT"),
        (["echo", "127.0.0.1:0", "--udp-option", "ttl=5"], "--udp-option is for udp://HOST:PORT"),
        (["echo", "udp://0", "--udp-option", "tll=5"], '--udp-option: there is no "tll". Did you mean "ttl"?'),
        (["echo", "udp://0", "--udp-option", "ttl"], "such as queue_datagrams=256"),
        (["echo", "udp://0", "--udp-option", "ttl=0"], "--udp-option ttl=0: it takes a whole number, 1 to 255"),
        (["echo", "udp://0", "--health-check", "ping"], "two texts such as ping=pong"),
        (["forward:127.0.0.1:53", "udp://*:0"], "the handler forward answers whoever asks on udp://*:0"),
        (
            ["forward:tls://a:53", "udp://127.0.0.1:0"],
            "tls://a:53 is for streams, and clients of udp://127.0.0.1:0 send",
        ),
        (["forward:udp://a:53", "127.0.0.1:0"], "udp://a:53 is for datagrams, and clients of 127.0.0.1:0 send streams"),
        (["forward:dtls://a:53", "udp://127.0.0.1:0"], "a forwarder does not speak DTLS to upstreams"),
        (["forward:1", "udp://127.0.0.1:0", "--send-proxy", "v1"], "version 1 knows TCP only"),
    ],
)
def test_what_would_hurt_or_do_nothing_is_refused(esockd: RunEsockd, arguments: list[str], told: str) -> None:
    status, _, err = esockd("open", *arguments)
    assert status == 2
    assert told in err


@pytest.mark.parametrize("rules", [["--allow", "127.0.0.1"], ["--allow", "127.0.0.1", "--deny", "all"]])
def test_an_allow_rule_lets_a_public_address_answer(start: Callable[..., Any], rules: list[str]) -> None:
    command = start("open", "echo", "udp://*:0", *rules)
    assert ask(command.read_port(), b"hello") == b"hello"


@pytest.fixture(scope="module")
def both() -> Iterator[Instance]:
    with Instance("echo", "udp://127.0.0.1:0", "127.0.0.1:0", "--backlog", "50", "--udp-option", "ttl=9") as instance:
        instance.read_port()
        yield instance


def test_stats_shows_datagrams_beside_streams(both: Instance) -> None:
    assert ask(both.port, b"hello") == b"hello"
    status, out, _ = both.run("stats")
    assert status == 0
    head, datagrams, streams = out.splitlines()
    assert head.split()[-5:] == ["DATAGRAMS", "IN", "DATAGRAMS", "OUT", "DROPPED"]
    assert datagrams.split()[-3:] == ["1", "1", "0"]
    assert streams.split()[-3:] == ["-", "-", "-"]


def test_stats_of_a_datagram_listener_tells_what_was_dropped(both: Instance) -> None:
    name = f"echo@udp://127.0.0.1:{both.port}"
    assert both.run("deny", name, "127.0.0.2").status == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.2", 0))
        client.sendto(b"x", ("127.0.0.1", both.port))
    assert ask(both.port, b"hello") == b"hello"
    dropped: dict[str, int] = {}
    give_up_at = time.monotonic() + PATIENCE_S
    while not dropped and time.monotonic() < give_up_at:  # datagrams of two sockets may overtake each other
        _, told, _ = both.run("stats", name, "--json")
        dropped = json.loads(told)["listeners"][0]["stats"]["datagrams_dropped"]
    assert dropped == {"forbidden": 1}
    _, out, _ = both.run("stats", name)
    assert "dropped        1 (forbidden 1)" in out
    assert "accept queue" not in out


def test_options_of_datagrams_are_shown_and_changed(both: Instance) -> None:
    name = f"echo@udp://127.0.0.1:{both.port}"
    assert both.run("get", name, "udp.ttl").out == "udp.ttl=9\n"
    assert both.run("set", name, "queue_datagrams=128").out == "udp.queue_datagrams: 64 -> 128 (live)\n"
