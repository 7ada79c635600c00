"""The summary of a listener: what is counted as refused, and what is not."""

from __future__ import annotations

from tests.cli.top.scene import make_stats

from esockd_cli._summary import summarize


def test_who_left_before_being_accepted_was_not_refused() -> None:
    summary = summarize("echo", "5000", make_stats(closed_early=3, closed_forbidden=1))
    assert "1 refused (closed_forbidden 1)" in str(summary)
    assert str(summary).endswith(", 3 left early")
    assert (summary.refused, summary.left_early) == ({"closed_forbidden": 1}, 3)
