"""What is to be examined: a configuration, one listener, or all that runs."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import anyio

from esockd_cli._asking import ask
from esockd_cli._instances import PATIENCE_S
from esockd_cli.doctor.findings import NotSeen
from esockd_cli.doctor.of_instances import examine_instance
from esockd_cli.doctor.patient import Patient
from esockd_core import ControlClient, EsockdError, find_control_sockets

if TYPE_CHECKING:
    from esockd_cli._output import Output
    from esockd_cli.doctor.patient import Process, Subject


def gather(target: str | None, instance: str | None, output: Output) -> tuple[Patient, list[NotSeen]]:
    """Find what is to be examined.

    Args:
        target: A configuration file or a listener; None for all that runs.
        instance: The instance that was named; None for any.
        output: How handlers of a configuration log.

    Returns:
        The patient, and the instances that do not answer.

    Raises:
        BadConfig: The configuration cannot be used.
        CommandError: There is no such instance or listener.
    """
    now = time.time()
    if target is not None and is_file(target):
        from esockd_cli._logs import set_up_logs  # noqa: PLC0415
        from esockd_cli.config.read import read_config  # noqa: PLC0415
        from esockd_cli.doctor.of_config import subjects_of  # noqa: PLC0415

        set_up_logs(output)
        planned, listeners = subjects_of(read_config(target))
        return Patient(now=now, processes=(planned,), listeners=tuple(listeners)), []
    if target is not None or instance is not None:
        process, listeners = ask(lambda client: examine_instance(client, target), instance, listener=target)
        return Patient(now=now, processes=(process,), listeners=tuple(listeners)), []
    found, unanswered = anyio.run(_examine_all)
    processes = tuple(process for process, _ in found)
    return Patient(
        now=now, processes=processes, listeners=tuple(each for _, some in found for each in some)
    ), unanswered


def is_file(target: str) -> bool:
    """Whether a word names a configuration file, and not a listener."""
    return target.endswith(".toml") or ("@" not in target and os.path.isfile(target))  # noqa: PTH113 (raises nothing)


async def _examine_all() -> tuple[list[tuple[Process, list[Subject]]], list[NotSeen]]:
    found: list[tuple[Process, list[Subject]]] = []
    unanswered: list[NotSeen] = []
    for name, path in find_control_sockets().items():
        try:
            async with ControlClient(path, read_only=True, timeout=PATIENCE_S) as client:
                found.append(await examine_instance(client))
        except EsockdError as error:
            unanswered.append(NotSeen(name, str(error)))
    return found, unanswered
