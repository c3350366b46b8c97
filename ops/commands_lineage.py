"""`lineage`: from any end of the chain to all of it."""

from __future__ import annotations

from typing import Annotated

import typer

from ops.console import Environment, Json, show


def register(app: typer.Typer) -> None:
    """Add this group's command."""
    app.command(name="lineage")(walk)


def walk(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="ID",
            help="An MLflow run id, DAG/RUN_ID (or DAG RUN_ID), a bundle version, a SageMaker job's name, "
            "a model package's ARN, or a model's NAME/VERSION.",
        ),
    ],
    environment: Environment = "local",
    as_json: Json = False,
) -> None:
    """Show what belongs together: MLflow run, DAG run, bundle version, SageMaker jobs, model versions."""
    from ops import lineage
    from ops.target import target_of

    result = lineage.read(target_of(environment), "/".join(what))
    show(result, as_json, lineage.readable(result))
