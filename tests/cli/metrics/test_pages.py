"""The page about metrics, the alert rules and the dashboard speak of metrics that exist."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from esockd_cli.metrics.table import METRICS, PROGRAM_METRICS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from esockd_cli.metrics.table import Metric, ProgramMetric

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE, RULES, DASHBOARD = DOCS / "metrics.md", DOCS / "prometheus/alerts.yml", DOCS / "prometheus/dashboard.json"
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def written_names() -> set[str]:
    """What Prometheus calls the metrics."""
    metrics = (*METRICS, *PROGRAM_METRICS)
    return {f"{metric.name}{suffix}" for metric in metrics for suffix in SUFFIXES[metric.kind]}


def table_rows() -> list[str]:
    """The table of the page as it has to be."""
    return [
        *(table_row(metric, ("listener", "transport", *metric.labels)) for metric in METRICS),
        *(table_row(metric, metric.labels) for metric in PROGRAM_METRICS),
    ]


def table_row(metric: Metric | ProgramMetric, labels: Sequence[str]) -> str:
    name = f"{metric.name}{'_total' if metric.kind == 'counter' else ''}"
    return f"| `{name}` | {metric.kind} | {', '.join(f'`{label}`' for label in labels)} | {metric.text} |"


def test_the_page_lists_every_metric() -> None:
    table = PAGE.read_text().partition("<!-- metrics -->\n\n")[2].partition("\n\n")[0].splitlines()
    assert table[2:] == table_rows()


@pytest.mark.parametrize("file", [RULES, DASHBOARD, PAGE], ids=lambda path: path.name)
def test_every_metric_that_is_named_exists(file: Path) -> None:
    named = set(re.findall(r"\b(?:esockd|process)_[a-z_]+[a-z]", file.read_text()))
    assert named
    assert named <= written_names() | {metric.name for metric in METRICS if metric.kind == "histogram"}


def test_prometheus_accepts_the_alert_rules(require_tool: Callable[[str], str]) -> None:
    checked = subprocess.run(
        [require_tool("promtool"), "check", "rules", RULES], capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert re.search(r"SUCCESS: \d+ rules found", checked.stdout)


def test_prometheus_can_read_every_query_of_the_dashboard(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    dashboard: Any = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    for variable, stand_in in {"$__rate_interval": "5m", "$instance": ".*", "$listener": ".*"}.items():
        queries = [query.replace(variable, stand_in) for query in queries]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = subprocess.run(
        [require_tool("promtool"), "check", "rules", tmp_path / "rules.yml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
