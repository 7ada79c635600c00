"""Listeners whose handlers and options are changed together while the workers run: all of them, or none."""

from __future__ import annotations

import os
import pickle
import signal
from typing import TYPE_CHECKING, Any

import pytest
from tests.core.workers.conftest import ECHO, PROGRAMS, ask, ask_all, ask_anew, other, port_of

from esockd_core import InvalidOption, ListenerOptions, UnknownListener
from esockd_core.workers import ChangeRefused, WorkerListener

if TYPE_CHECKING:
    from pathlib import Path

    from tests.core.workers.conftest import Serve

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]


async def test_handlers_and_options_of_several_listeners_are_changed_together(serve: Serve) -> None:
    async with serve() as served:
        second = await served.workers.open(other())
        kept = await served.connect()
        assert await ask(kept) == b"hello"

        plans = await served.workers.change(
            WorkerListener(name="echo", address="127.0.0.1:0", handler=PROGRAMS + "other"),
            other(max_connections=7, access_rules=["deny 127.0.0.9", "allow all"]),
        )

        assert [change.name for change in plans[0].changes] == ["shutdown_timeout"]
        assert {change.name for change in plans[1].changes} == {"max_connections", "access_rules"}
        assert await ask(kept) == b"hello"
        assert await ask_all([await served.connect() for _ in range(10)]) == [b"other"] * 10
        assert (await second.get_options())["max_connections"] == 7
        assert (await second.test_rules("127.0.0.9")).action == "deny"
        assert (await served.listener.get_status()).handler == PROGRAMS + "other"
        os.kill(min(served.pids()), signal.SIGKILL)
        assert await ask_all([await served.connect() for _ in range(10)]) == [b"other"] * 10


async def test_objects_of_the_program_cross_to_the_workers(serve: Serve) -> None:
    from tests.core.workers.programs import no_room  # noqa: PLC0415

    async with serve() as served:
        await served.workers.change(
            WorkerListener(name="echo", address="127.0.0.1:0", handler=ECHO, options=ListenerOptions(load_hook=no_room))
        )
        assert await ask(await served.connect()) == b""
        assert (await served.listener.get_stats()).closed_overloaded == 1


async def test_a_change_that_one_listener_cannot_make_is_made_by_none(serve: Serve, tmp_path: Path) -> None:
    async with serve(options={"max_conn_rate": "1000/s"}) as served:
        await served.workers.open(other())
        pids = served.pids()
        (tmp_path / "broken").touch()
        with pytest.raises(ChangeRefused, match="the code is broken") as caught:
            await served.workers.change(
                WorkerListener(
                    name="echo",
                    address="127.0.0.1:0",
                    handler=PROGRAMS + "other",
                    options=ListenerOptions(max_connections=3, access_rules=["deny all"], max_conn_rate="1/h"),
                ),
                other("127.0.0.1:0", "named_echo", str(tmp_path)),
            )
        assert caught.value.listener.name == "other"
        assert isinstance(pickle.loads(pickle.dumps(caught.value)), ChangeRefused)
        options = await served.listener.get_options()
        assert (options["max_conn_rate"], options["shutdown_timeout"], options["access_rules"]) == ("1000/s", 0.0, ())
        assert await ask_all([await served.connect() for _ in range(20)]) == [b"hello"] * 20
        assert served.pids() == pids
        with pytest.raises(ChangeRefused, match="no listener nobody") as unknown:
            await served.workers.change(WorkerListener(name="nobody", address=1, handler=ECHO))
        assert isinstance(unknown.value.error, UnknownListener)


async def test_what_does_not_change_is_not_made_anew(serve: Serve, tmp_path: Path) -> None:
    async with serve() as served:
        made = other("127.0.0.1:0", "named_echo", str(tmp_path))
        control = await served.workers.open(made)
        (tmp_path / "broken").touch()  # so that it would fail
        (plan,) = await served.workers.change(made)
        assert not plan.changes
        await served.workers.change(other("127.0.0.1:0", "named_echo", str(tmp_path), max_connections=5))
        assert await ask_anew(await port_of(control)) == b"hello"
        assert (await control.get_options())["max_connections"] == 5


async def test_a_listener_that_is_named_twice_is_refused_before_anything_changes(serve: Serve) -> None:
    async with serve() as served:
        same: dict[str, Any] = {
            "name": "echo",
            "address": "127.0.0.1:0",
            "options": ListenerOptions(shutdown_timeout=0.0),
        }
        with pytest.raises(ChangeRefused, match="is named twice") as caught:
            await served.workers.change(
                WorkerListener(handler=PROGRAMS + "other", **same), WorkerListener(handler=ECHO, **same)
            )
        assert isinstance(caught.value.error, InvalidOption)
        assert await ask_all([await served.connect() for _ in range(20)]) == [b"hello"] * 20
