"""`scale explain`, `scale simulate`: why the fleets have their size."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ops.console import Environment, Json, OperatorError, show, table

Queue = Annotated[str, typer.Option("--queue", help="The queue whose fleet it is about.")]
COLUMNS = ["at", "queued", "running", "expected", "live", "starting", "wanted", "started", "reason"]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    group = typer.Typer(
        help="Why the fleets have their size, and what other rules would do.", no_args_is_help=True
    )
    group.command()(explain)
    group.command()(simulate)
    app.add_typer(group, name="scale")


def explain(
    environment: Environment = "local",
    queue: Queue = "default",
    minutes: Annotated[int, typer.Option(min=1, max=10_080, help="How far back.")] = 5,
    as_json: Json = False,
) -> None:
    """Show each sample of the load, what was decided, and why."""
    from ops import scaling
    from ops.target import target_of

    rows = scaling.explain(target_of(environment), queue, minutes=minutes)
    # A zero is a figure here, not a missing value.
    shown = [{name: str(value) for name, value in row.items()} for row in rows]
    text = table(shown, COLUMNS) if rows else f"No sample of queue {queue} in the last {minutes} minutes."
    show({"queue": queue, "samples": rows}, as_json, text)


def simulate(
    environment: Environment = "local",
    queue: Queue = "default",
    from_history: Annotated[
        Path | None,
        typer.Option("--from-history", help="CSV: dag_id, run_id, scheduled, queued_at, duration_seconds."),
    ] = None,
    from_database: Annotated[
        bool, typer.Option("--from-database", help="Replay what Airflow's database holds.")
    ] = False,
    days: Annotated[float, typer.Option(min=0.01, max=31, help="How much of the database to replay.")] = 1,
    drawing: Annotated[
        Path | None, typer.Option("--picture", help="Where to draw workers over load (SVG).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Replay a history under Updraft's rule and the peers', with the queue's bounds."""
    from benchmarks.autoscaling.compare import table as figures
    from ops import scaling
    from ops.target import target_of

    if (from_history is None) != from_database:
        raise OperatorError("name one source: --from-history FILE.csv or --from-database")
    target = target_of(environment)
    with tempfile.TemporaryDirectory() as scratch:
        history = from_history or Path(scratch) / "history.csv"
        if from_database:
            scaling.write_history(target, queue, days=days, file=history)
        result = scaling.simulate(target, queue, history, drawing)
    show(result, as_json, f"{result['tasks']} tasks in {result['runs']} runs\n{figures(result['rules'])}")
