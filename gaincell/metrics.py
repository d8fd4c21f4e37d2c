"""The command `metrics`: check figures against the tolerance file, or renew it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

__all__ = ["metrics"]


def metrics(
    update: Annotated[
        bool, typer.Option("--update", help="Let today's values hold from now on.")
    ] = False,
) -> None:
    """Check clocks, gates, clock rate and energy against the values that hold."""
    from sim.metrics import RULES, check_metrics, measure, metrics_table, read_rules, update_rules
    from sim.results import ROOT

    console = Console()
    with console.status("measuring"):
        values = measure()
    rows = check_metrics(values, read_rules())
    console.print(metrics_table(rows))
    if update:
        update_rules(values)
        console.print(f"these hold now: {RULES.relative_to(ROOT)}")
        return
    worse = [row.metric.title for row in rows if row.verdict == "worse"]
    if worse:
        console.print(
            f"worse than the tolerance allows: {', '.join(worse)}. If it is meant, "
            "`make metrics-update` and commit what it writes."
        )
        raise typer.Exit(1)
