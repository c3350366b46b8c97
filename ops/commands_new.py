"""`new`: an environment of one's own, by options or by questions."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ops.console import Json, OperatorError, say, show

# What is asked on a terminal when no option answers it, in this order.
QUESTIONS = {
    "project": "Project, the first part of every name",
    "region": "AWS region",
    "size": "Size: small (cheapest that is whole) or available (two of each, in two zones)",
    "nat": "Way out of the network: instance (cheapest), gateway or gateway_per_az",
    "broker": "Broker: sqs (costs nothing while nobody works) or redis (with Flower)",
    "tracking": "MLflow",
    "spark": "Spark engine: none, ecs, emr-serverless or databricks",
    "awake": "Awake on weekdays, such as 08:00-18:00; empty: always",
    "hardened": "Held to NIST 800-53 as well",
    "keep_data": "Keep the data when it is destroyed",
}


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(new)


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The environment: a file in environments/.")],
    project: Annotated[str | None, typer.Option(help="First part of every name in AWS.")] = None,
    region: Annotated[str | None, typer.Option(help="AWS region.")] = None,
    account: Annotated[str | None, typer.Option(help="AWS account; without one, that of the login.")] = None,
    size: Annotated[str | None, typer.Option(help="small or available.")] = None,
    nat: Annotated[str | None, typer.Option(help="instance, gateway or gateway_per_az.")] = None,
    broker: Annotated[str | None, typer.Option(help="sqs or redis.")] = None,
    tracking: Annotated[bool | None, typer.Option(help="MLflow.")] = None,
    spark: Annotated[str | None, typer.Option(help="none, ecs, emr-serverless or databricks.")] = None,
    spark_instance_profile: Annotated[
        str | None, typer.Option(help="Of the cluster's nodes; only for databricks.")
    ] = None,
    awake: Annotated[str | None, typer.Option(help="Hours on weekdays, such as 08:00-18:00.")] = None,
    time_zone: Annotated[str | None, typer.Option(help="Of --awake, such as Europe/Zurich.")] = None,
    hardened: Annotated[bool | None, typer.Option(help="Held to NIST 800-53 as well.")] = None,
    keep_data: Annotated[bool | None, typer.Option(help="What holds data survives `destroy`.")] = None,
    budget_usd: Annotated[int | None, typer.Option(help="SageMaker's budget for a month.")] = None,
    alarm_email: Annotated[str | None, typer.Option(help="Told when the budget is nearly spent.")] = None,
    dags: Annotated[Path | None, typer.Option("--dags", help="Also make this folder of DAGs.")] = None,
    defaults: Annotated[bool, typer.Option("--defaults", help="Ask nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Make an environment: its file, and with --dags a folder of DAGs to start from."""
    from ops.activator import Choices, create

    given = {key: value for key, value in locals().items() if key in {item.name for item in fields(Choices)}}
    choices = replace(Choices(), **{key: value for key, value in given.items() if value is not None})
    if sys.stdin.isatty() and not defaults and not as_json:
        open_questions = [key for key in QUESTIONS if given[key] is None]
        choices = replace(choices, **{key: _ask(key, getattr(choices, key)) for key in open_questions})
    written = [str(path) for path in create(name, choices, dags=dags)]
    following = [f"./updraft synth --environment {name}", f"./updraft deploy --environment {name}"]
    following += [f"./updraft push --environment {name}" + (f" --dags {dags}" if dags else "")]
    steps = "\n".join(f"  {command}" for command in following)
    show({"written": written, "next": following}, as_json, f"Made {', '.join(written)}. Next:\n{steps}")


def _ask(key: str, default: Any) -> Any:
    try:
        if isinstance(default, bool):
            return typer.confirm(QUESTIONS[key], default=default, err=True)
        answer = typer.prompt(QUESTIONS[key], default=default or "", show_default=bool(default), err=True)
    except typer.Abort as error:
        say("")
        raise OperatorError("nothing was made") from error
    return answer or None
