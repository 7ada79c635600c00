"""Checks of the Python that runs this command, and of the event loops of instances."""

from __future__ import annotations

import os
import re
import sys
from importlib.metadata import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from esockd_cli.doctor.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from esockd_cli.doctor.patient import Patient

PYTHON: Final = "python"
OF_PYTHON: Final = re.compile(r"^Programming Language :: Python :: (3\.\d+)$")


def tested_versions() -> tuple[str, ...]:
    """The versions of Python that esockd-cli is tested with."""
    return tuple(
        found[1] for each in metadata("esockd-cli").get_all("Classifier", []) if (found := OF_PYTHON.match(each))
    )


def look_at_python(
    patient: Patient,
    *,
    version: tuple[int, int] = sys.version_info[:2],
    release: str = sys.version_info.releaselevel,
    environment: Mapping[str, str] = os.environ,
) -> Iterator[Finding]:
    """The version and the modes of this Python."""
    del patient
    text = f"{version[0]}.{version[1]}"
    kind = "" if release == "final" else f" ({release})"
    if text not in (tested := tested_versions()) or release != "final":
        yield Finding(
            "warning",
            PYTHON,
            f"this Python is {text}{kind}, and esockd is tested on {', '.join(tested)}",
            "It may work, but nobody has seen it do so.",
            f"pipx install --python python{tested[-1]} esockd-cli",
        )
    for name in ("PYTHONDEVMODE", "PYTHONASYNCIODEBUG"):
        if environment.get(name):
            yield Finding(
                "warning",
                PYTHON,
                f"{name} is set in this environment",
                "Instances that are started in it run in a mode for finding mistakes, several times slower.",
                f"unset {name}",
            )


def look_at_event_loop(patient: Patient, *, has_uvloop: bool | None = None) -> Iterator[Finding]:
    """The event loop of each instance, or else whether the quick one is installed."""
    if has_uvloop is None:
        has_uvloop = find_spec("uvloop") is not None
    why = "A connection costs about twice as much CPU time on plain asyncio."
    install = "pip install 'esockd-cli[uvloop]'"
    if not patient.processes and not has_uvloop:
        yield Finding("warning", PYTHON, "uvloop is not installed", why, install)
    for process in patient.processes:
        if process.event_loop == "asyncio":
            mend = "start it without --loop asyncio" if has_uvloop else install
            yield Finding("warning", process.name, "its event loop is asyncio, and not uvloop", why, mend)
