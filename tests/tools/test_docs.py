"""`make docs` fails for what a reader of the site would miss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("link", "complaint"),
    [("[x](docs/nowhere.md)", "docs/nowhere.md"), ("[x](#no-such-part)", "no-such-part")],
    ids=["a page that is not there", "a part that is not there"],
)
def test_a_link_that_leads_nowhere_fails(tmp_path: Path, run: Run, link: str, complaint: str) -> None:
    (tmp_path / "README.md").write_text(f"# Title\n\n## A part\n\n[fine](#a-part) {link}\n")
    result = run("sphinx-build", "-q", "-W", "--keep-going", "-c", ROOT / "docs", tmp_path, tmp_path / "site")
    assert result.returncode != 0
    [line] = [line for line in result.stdout.splitlines() if "README.md:5:" in line]
    assert complaint in line
