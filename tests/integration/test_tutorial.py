"""The tutorial, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from tests.integration.tour import take_tour

if TYPE_CHECKING:
    from tests.conftest import RequireTool

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"


@pytest.mark.timeout(300)
def test_every_step_of_the_tutorial_does_what_it_says(tmp_path: Path, require_tool: RequireTool) -> None:
    require_tool("openssl")
    assert take_tour(PAGE, tmp_path, require_tool) > 10
