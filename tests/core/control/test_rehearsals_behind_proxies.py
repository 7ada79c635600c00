"""Rehearsals behind proxies: the proxy and the client that its header names are judged, each in its turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from tests.core.conftest import HEADER, connect, connect_stream, echo, until
from tests.core.control.conftest import refused, report, served

from esockd_core import InvalidOption, ProxyOptions, RehearsalReport, open_listener

if TYPE_CHECKING:
    from esockd_core import Handler

pytestmark = pytest.mark.anyio


async def test_behind_a_proxy_both_the_proxy_and_the_client_of_its_header_are_judged(handler: Handler) -> None:
    proxy = ProxyOptions(trusted=["127.0.0.0/8"])
    told: RehearsalReport | None = None
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", handler, proxy_protocol=proxy) as listener:
            await listener.rehearse(
                "deny 192.0.2.0/24", proxy_protocol={"trusted": ["127.0.0.1", "127.0.0.3"]}, max_connections=1
            )
            for source in ("127.0.0.1", "127.0.0.2", "127.0.0.1"):
                async with await connect_stream(listener, source) as client:
                    await client.send(HEADER + b"hello")
                    assert await client.receive() == b"hello"
                    told = await report(listener)
                await until(lambda: listener.stats().current_connections == 0)
            assert told is not None
            assert (told.seen, told.refused) == (3, {"source_forbidden": 2, "closed_forbidden": 1})
            assert told.newly_refused == told.refused
            assert [each.client[0] for each in told.examples] == ["192.0.2.7", "127.0.0.2", "192.0.2.7"]
            assert told.examples[1].reason == "it is not a trusted proxy"
            await listener.commit_rehearsal()
            assert (await listener.get_options())["proxy_protocol.trusted"] == ("127.0.0.1", "127.0.0.3")
            async with await connect_stream(listener) as client:
                await client.send(HEADER)
                with pytest.raises(anyio.EndOfStream):
                    await client.receive()
    assert listener.stats().shutdown_counts["source_forbidden"] == 1


async def test_a_client_of_a_proxy_that_is_refused_anyway_is_not_newly_refused() -> None:
    proxy = ProxyOptions(trusted=["127.0.0.0/8"])
    rules = ["deny 192.0.2.0/24"]
    async with open_listener("echo", "127.0.0.1:0", echo, proxy_protocol=proxy, access_rules=rules) as listener:
        await listener.rehearse(proxy_protocol={"trusted": ["127.0.0.9"]})
        async with await connect_stream(listener) as client:
            await client.send(HEADER)
            with pytest.raises(anyio.EndOfStream):
                await client.receive()
        told = await report(listener)
    assert (told.refused, told.newly_refused) == ({"closed_forbidden": 1}, {})


async def test_a_commit_never_switches_headers_on_that_were_switched_off_meanwhile() -> None:
    async with open_listener("echo", "127.0.0.1:0", echo, proxy_protocol=True) as listener:
        await listener.rehearse(proxy_protocol={"trusted": ["127.0.0.1"]})
        await listener.set_options(proxy_protocol=False)
        assert (await report(listener)).state == "over"
        with pytest.raises(InvalidOption, match="proxy_protocol: it cannot be rehearsed"):
            await listener.commit_rehearsal()
        assert (await listener.get_options())["proxy_protocol"] is False


async def test_headers_that_are_switched_on_meanwhile_are_judged_as_they_come() -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo) as listener:
            await listener.rehearse("deny 192.0.2.99")
            (await served(listener)).close()
            await listener.deny("127.0.0.0/8")
            await listener.set_options(proxy_protocol=ProxyOptions(access_rules_on="both"))
            with connect(listener) as denied:
                await refused(denied)
            await listener.remove_rule("deny 127.0.0.0/8")
            async with await connect_stream(listener) as client:
                await client.send(HEADER + b"hello")
                assert await client.receive() == b"hello"
            told = await report(listener)
    assert (told.state, told.seen, told.refused) == ("running", 3, {"closed_forbidden": 1})
