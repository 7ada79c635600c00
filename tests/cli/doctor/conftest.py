"""What the tests of the checks share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.cli.doctor.machines import HEALTHY, write

from esockd_cli.doctor.machine import Machine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def well(tmp_path: Path) -> Machine:
    """A machine that is well."""
    machine = Machine(tmp_path)
    for path, text in HEALTHY.items():
        write(machine, path, text)
    return machine
