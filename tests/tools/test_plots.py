"""The plots of the performance page show what is recorded, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the tools are scripts, in no package that is installed

from tools.plots import FOLDER, OTHERS, OURS, PLOTS, Bar, Plot, drawn, read_bars, to_svg  # noqa: E402

RECORD = """# Things

| not this | one |
|---|---|
| esockd | 99 |

## Echo

Words.

| server | CPU µs/op (range) | ratio |
|---|---:|---:|
| other | ~ 1,200.5 (1,000-1,400) | 2.0 |
| esockd | 600 | |

## Connect
"""
PLOT = Plot("echo", "things", "Echo", "CPU", "Echo & more")


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_a_plot_is_that_of_the_record(plot: Plot) -> None:
    assert (FOLDER / f"{plot.name}.svg").read_text() == drawn(plot), "run: make plots"


def test_the_page_shows_every_plot_and_the_folder_has_no_other() -> None:
    page = (ROOT / "docs/performance.md").read_text()
    names = {f"{plot.name}.svg" for plot in PLOTS}
    assert {path.name for path in FOLDER.iterdir()} == names
    assert [name for name in names if f"](plots/{name})" not in page] == []


def test_the_table_under_the_heading_is_read_with_its_ranges_the_least_first() -> None:
    assert read_bars(PLOT, RECORD) == [Bar("esockd", 600, 600, 600), Bar("other", 1200.5, 1000, 1400)]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("## Echo", "## Echoes", "no table under 'Echo'"),
        ("CPU µs/op", "wall µs/op", "no column 'CPU'"),
        ("| 600 |", "| six |", "esockd has 'six', which is not a number"),
    ],
)
def test_a_record_that_has_changed_its_form_is_an_error(old: str, new: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_bars(PLOT, RECORD.replace(old, new))


def test_bars_are_as_long_as_their_figures_and_ours_are_in_colour() -> None:
    root = ET.fromstring(to_svg(PLOT, read_bars(PLOT, RECORD)))
    bars = [bar for bar in root.iter("{http://www.w3.org/2000/svg}rect") if bar.get("x")]
    assert [bar.get("fill") for bar in bars] == [OURS, OTHERS]
    ours, other = (float(bar.get("width", "0")) for bar in bars)
    assert other / ours == pytest.approx(1200.5 / 600, rel=0.01)
    assert root.get("aria-label") == "Echo & more"
