"""Limits and counters over several workers: exact, whatever happens to one of them."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.core.workers.conftest import ask, ask_all
from tests.core.workers.programs import no_room

from esockd_proxyproto import Endpoint, ProxyHeader, encode

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from tests.core.workers.conftest import Serve, Served

    from esockd_core import Stats

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]


def admitted(answers: list[bytes]) -> int:
    return answers.count(b"hello")


def is_whole(stats: Stats) -> bool:
    """Whether every admitted connection is open or ended for one reason."""
    return stats.accepted == stats.current_connections + sum(stats.shutdown_counts.values())


def holds(connections: int) -> Callable[[Stats], bool]:
    """Whether so many connections are open, and all others are counted as ended."""
    return lambda stats: stats.current_connections == connections and is_whole(stats)


async def test_no_worker_admits_a_client_beyond_max_connections_and_none_leaves_a_place_unused(serve: Serve) -> None:
    async with serve(options={"max_connections": 20}) as served:
        clients = [await served.connect() for _ in range(60)]
        answers = await ask_all(clients)

        assert admitted(answers) == 20
        stats = await served.listener.get_stats()
        assert (stats.accepted, stats.closed_max_limit, stats.current_connections) == (20, 40, 20)


async def test_places_come_and_go_at_random_and_never_one_too_many_or_too_few(serve: Serve) -> None:
    chance = random.Random(7)
    most = 12
    async with serve(options={"max_connections": most}) as served:
        clients: list[socket.socket] = []
        tried = killed = 0
        for number in range(30):
            if number % 7 == 5:  # a worker dies, and with it all its connections
                os.kill(chance.choice(sorted(served.pids())), signal.SIGKILL)
                killed += 1
                await served.until(lambda stats: stats.shutdown_counts.get("worker_lost", -1) >= 0)
                clients = [client for client in clients if await ask(client)]
                await served.until(holds(len(clients)))
            for client in chance.sample(clients, chance.randint(0, len(clients))):
                clients.remove(client)
                client.close()
            await served.until(holds(len(clients)))
            fresh = [await served.connect() for _ in range(chance.randint(0, most))]
            tried += len(fresh)
            answers = await ask_all(fresh)
            assert admitted(answers) == min(len(fresh), most - len(clients))
            clients += [client for client, answer in zip(fresh, answers, strict=True) if answer]

        stats = await served.listener.get_stats()
        assert killed
        assert is_whole(stats)
        assert stats.accepted + stats.closed_max_limit == tried


async def test_a_killed_worker_loses_its_connections_and_no_counter(serve: Serve) -> None:
    async with serve() as served:
        clients = [await served.connect() for _ in range(30)]
        for client in clients[:10]:
            await ask(client)
            client.close()
        pids = await ask_all(clients[10:], b"pid")
        await served.until(lambda stats: stats.current_connections == 20)
        victim = Counter(pids).most_common(1)[0][0]

        os.kill(int(victim), signal.SIGKILL)

        stats = await served.until(lambda stats: "worker_lost" in stats.shutdown_counts)
        assert stats.accepted == 30
        assert stats.shutdown_counts["worker_lost"] == pids.count(victim)
        assert stats.current_connections == 20 - pids.count(victim)
        assert is_whole(stats)


async def test_the_connections_of_one_source_are_counted_over_all_workers(serve: Serve) -> None:
    async with serve(options={"max_connections_per_source": 3}) as served:
        sources = [f"127.0.0.{number}" for number in range(2, 8)]
        clients = [await served.connect(source) for source in sources for _ in range(6)]
        answers = await ask_all(clients)

        assert [admitted(answers[begin : begin + 6]) for begin in range(0, 36, 6)] == [3] * 6
        for client, answer in zip(clients[:6], answers, strict=False):
            if answer:
                client.close()
        await served.until(lambda stats: stats.current_connections == 15)
        assert admitted(await ask_all([await served.connect(sources[0]) for _ in range(6)])) == 3
        explained = await served.listener.explain(sources[1])
        assert explained.decided_by is not None
        assert explained.decided_by.reason == "3 of max_connections_per_source 3 open"


async def test_the_clients_that_proxy_headers_name_are_counted_over_all_workers(serve: Serve) -> None:
    async with serve(options={"max_connections_per_source": 3, "proxy_protocol": True}) as served:
        clients = [await served.connect() for _ in range(20)]
        for number, client in enumerate(clients):
            source = Endpoint(f"192.0.2.{number % 2}", 40_000 + number)
            client.send(encode(ProxyHeader(2, source=source, destination=Endpoint("192.0.2.100", 443))))
        answers = await ask_all(clients)

        assert (admitted(answers[::2]), admitted(answers[1::2])) == (3, 3)
        stats = await served.until(lambda stats: stats.current_connections == 6)
        assert stats.shutdown_counts == {"source_max_limit": 14}


async def test_a_client_that_the_load_keeps_out_gives_its_places_back(serve: Serve) -> None:
    limits = {"max_connections": 3, "max_connections_per_source": 2, "load_hook": no_room}
    async with serve(options=limits) as served:
        clients = [await served.connect(source) for source in ("127.0.0.1", "127.0.0.9") for _ in range(20)]
        assert not admitted(await ask_all(clients))

        stats = await served.until(lambda stats: stats.refused == 40)
        assert (stats.closed_overloaded, stats.closed_other_reasons) == (20, 20)
        stages = {each.name: each.reason for each in (await served.listener.explain("127.0.0.1")).stages}
        assert stages["room"] == "0 of 3 open"
        assert stages["room of its source"] == "0 of max_connections_per_source 2 open"


async def test_a_hook_is_found_wherever_the_program_was_started(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with serve(options={"load_hook": no_room}) as served:
        assert not admitted(await ask_all([await served.connect() for _ in range(2)]))


async def test_a_killed_worker_releases_the_places_of_its_sources(serve: Serve) -> None:
    async with serve(options={"max_connections_per_source": 4}) as served:
        clients = [await served.connect() for _ in range(4)]
        pids = await ask_all(clients, b"pid")

        os.kill(int(pids[0]), signal.SIGKILL)

        lost = pids.count(pids[0])
        await served.until(lambda stats: stats.shutdown_counts.get("worker_lost") == lost)
        fresh = [await served.connect() for _ in range(8)]
        assert admitted(await ask_all(fresh)) == lost


async def test_a_rate_is_one_for_all_workers_and_survives_each(serve: Serve) -> None:
    async with serve(options={"max_conn_rate": "1/h burst 10"}) as served:
        clients = [await served.connect() for _ in range(6)]
        answers = await ask_all(clients)
        for pid in served.pids():
            os.kill(pid, signal.SIGKILL)
        clients += [await served.connect() for _ in range(20)]
        answers += await ask_all(clients[6:])

        assert admitted(answers) == 10
        stats = await served.listener.get_stats()
        assert (stats.accepted, stats.closed_rate_limited) == (10, 16)


async def test_the_rate_of_one_source_is_one_for_all_workers(serve: Serve) -> None:
    async with serve(options={"max_conn_rate_per_source": "1/h burst 5"}) as served:
        clients = [await served.connect(source) for source in ("127.0.0.2", "127.0.0.3") for _ in range(12)]
        answers = await ask_all(clients)

        assert (admitted(answers[:12]), admitted(answers[12:])) == (5, 5)


async def test_limits_change_everywhere_at_once_and_keep_what_was_spent(serve: Serve) -> None:
    async with serve(options={"max_conn_rate": "1/h burst 10"}) as served:
        clients = [await served.connect() for _ in range(8)]
        assert admitted(await ask_all(clients)) == 8

        await served.listener.set_options(max_conn_rate="1/h burst 5", max_connections=9)

        more = [await served.connect() for _ in range(8)]
        assert admitted(await ask_all(more)) == 1, "9 places, and 2 tokens were left"


async def test_clients_beyond_the_room_wait_in_the_queue_until_any_worker_has_made_some(serve: Serve) -> None:
    async with serve(options={"max_connections": 4, "when_full": "backlog"}) as served:
        clients = [await served.connect() for _ in range(12)]
        served_ones: list[socket.socket] = []
        waiting = list(clients)
        with anyio.fail_after(60):
            while waiting:
                await next_served(served, waiting, served_ones)
                assert (await served.listener.get_stats()).current_connections <= 4
                served_ones.pop(0).close()
        stats = await served.until(lambda stats: stats.current_connections == len(served_ones))
        assert (stats.accepted, stats.refused) == (12, 0)


async def next_served(served: Served, waiting: list[socket.socket], served_ones: list[socket.socket]) -> None:
    """Let clients that were served go over to the others; return when there is one at least."""
    await served.until(lambda stats: stats.accepted > 12 - len(waiting) or bool(served_ones))
    for client in tuple(waiting):
        with anyio.move_on_after(0.1):
            if await ask(client):
                waiting.remove(client)
                served_ones.append(client)
