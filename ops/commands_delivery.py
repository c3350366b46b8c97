"""`push`, `rollback`, `releases`, `promote`: which version of the DAG bundle is live."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ops.console import Environment, Json, OperatorError, show, table


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(push)
    app.command()(rollback)
    app.command()(releases)
    app.command()(promote)


def push(
    environment: Environment = "local",
    dags: Annotated[Path, typer.Option("--dags", help="The folder of DAGs to push.")] = Path("dags"),
    watch: Annotated[bool, typer.Option("--watch", help="Push again at every change, until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """Test a folder of DAGs, make it live, and return when every DAG of it is served."""
    from ops import delivery, sleeping
    from ops.target import target_of

    target = target_of(environment)
    sleeping.ensure_awake(target)
    if watch:
        if as_json:
            raise OperatorError("--watch never ends, so it has no document for --json; use one of them")
        delivery.watch(target, dags)
    else:
        _show(delivery.push(target, dags), as_json)


def rollback(
    version: Annotated[
        str | None, typer.Argument(help="Which version; by default the one before the live one.")
    ] = None,
    environment: Environment = "local",
    as_json: Json = False,
) -> None:
    """Make an earlier version live again."""
    from ops import delivery, sleeping
    from ops.target import target_of

    target = target_of(environment)
    sleeping.ensure_awake(target)
    _show(delivery.rollback(target, version), as_json)


def releases(environment: Environment = "local", as_json: Json = False) -> None:
    """Show the versions that were made live: when, by whom, by which deployment, and the runs still on each."""
    from ops import delivery
    from ops.target import target_of

    result = delivery.releases(target_of(environment))
    rows = [
        row
        | {
            "version": row["version"] + (" *" if row["live"] else ""),
            "runs": "?" if row["runs"] is None else str(row["runs"]),
        }
        for row in result["releases"]
    ]
    columns = ["version", "time", "kind", "who", "deployment_id", "runs"]
    show(result, as_json, table(rows, columns) if rows else "Nothing was pushed yet.")


def promote(
    source: Annotated[str, typer.Option("--from", help="The environment that has the version.")],
    environment: Annotated[str, typer.Option("--environment", "-e", help="The environment that gets it.")],
    version: Annotated[
        str | None, typer.Argument(help="Which version; by default the one that is live in the source.")
    ] = None,
    from_profile: Annotated[
        str | None,
        typer.Option(
            "--from-profile", metavar="NAME", help="The AWS profile that reads the source, if another does."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the same bundle live in another environment, for example of dev in prod."""
    from ops import delivery, sleeping
    from ops.target import target_of

    if source == environment:
        raise OperatorError(f"--from and --environment both name '{source}'")
    target, origin = target_of(environment), target_of(source, profile=from_profile)
    if from_profile is not None and origin.is_local:
        raise OperatorError(f"--from-profile: '{source}' is on this laptop and has no profile; leave it out")
    sleeping.ensure_awake(target)
    _show(delivery.promote(target, origin, version), as_json)


def _show(result: dict[str, Any], as_json: bool) -> None:
    dags = f": {', '.join(result['dag_ids'])}" if result["dag_ids"] else ""
    show(result, as_json, f"Version {result['version']} is live{dags}.")
