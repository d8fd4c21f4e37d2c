"""Check of figures against the tolerance file, or its renewal, as the command line shows them."""

from __future__ import annotations

from rich.console import Console

from sim.metrics import RULES, check_metrics, measure, metrics_table, read_rules, update_rules
from sim.results import ROOT

__all__ = ["run_metrics"]


def run_metrics(console: Console, *, update: bool) -> bool:
    """Measure, compare, print; with ``update`` let today's values hold from now on.

    Returns
    -------
    bool
        Nothing is worse than its tolerance allows, or it holds now.
    """
    with console.status("measuring"):
        values = measure()
    rows = check_metrics(values, read_rules())
    console.print(metrics_table(rows))
    if update:
        update_rules(values)
        console.print(f"these hold now: {RULES.relative_to(ROOT)}")
        return True
    worse = [row.metric.title for row in rows if row.verdict == "worse"]
    if worse:
        console.print(
            f"worse than the tolerance allows: {', '.join(worse)}. If it is meant, "
            "`make metrics-update` and commit what it writes."
        )
    return not worse
