"""`check`, `bundle`, `run`: DAGs and their runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ops.console import Environment, Json, OperatorError, say, show, step


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(check)
    app.command()(bundle)
    app.command()(run)


def check(
    dags: Annotated[Path, typer.Option("--dags", help="The folder of DAGs to check.")] = Path("dags"),
    as_json: Json = False,
) -> None:
    """Import DAGs as a push would and tell every error with its file and line; needs no platform."""
    from ops import checking

    result = checking.check(dags)
    told = [str(checking.Finding(**error)) for error in result["errors"]]
    good = f"{len(result['dag_ids'])} DAGs are good: {', '.join(result['dag_ids'])}."
    show(result, as_json, "\n".join(told) or good)
    if told:
        raise OperatorError(f"{dags}: a push would be refused for {len(told)} error{'s' * (len(told) > 1)}")


def bundle(
    output: Annotated[Path, typer.Option("--output", help="The folder to write VERSION.zip to.")],
    dags: Annotated[Path, typer.Option("--dags", help="The folder of DAGs.")] = Path("dags"),
    as_json: Json = False,
) -> None:
    """Write the bundle that a push would send, for a pipeline that deploys it with CodeDeploy."""
    from ops import checking

    built = checking.build(dags, output)
    result = {"version": built.version, "archive": str(built.archive)}
    show(result, as_json, str(built.archive))


def run(
    dag_id: Annotated[str, typer.Argument(metavar="DAG")],
    environment: Environment = "local",
    conf: Annotated[str, typer.Option("--conf", help="The run's parameters, as JSON.")] = "{}",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the run has ended.")] = False,
    timeout_seconds: Annotated[float, typer.Option(help="How long to wait.")] = 3600,
    as_json: Json = False,
) -> None:
    """Start a run of a DAG."""
    from ops.target import target_of

    airflow = target_of(environment).airflow()
    parameters = _parse_conf(conf)
    # Airflow runs with the defaults where a name is misspelt.
    known = airflow.params(dag_id)
    unknown = [name for name in parameters if name not in known]
    if unknown:
        raise OperatorError(
            f"--conf: {dag_id} has no {', '.join(unknown)}; it has {', '.join(sorted(known))}"
        )
    started = airflow.trigger(dag_id, parameters)
    say(f"  {dag_id} {started['dag_run_id']} started")
    if wait:
        with step(f"running {dag_id}"):
            started = airflow.wait(
                dag_id,
                started["dag_run_id"],
                timeout_seconds=timeout_seconds,
                on_change=lambda task, state: say(f"  {task}: {state}"),
            )
    result = {"dag_id": dag_id, "run_id": started["dag_run_id"], "state": started["state"]}
    show(result, as_json, f"{dag_id} {result['run_id']}: {result['state']}")
    if started["state"] == "failed":
        raise OperatorError(f"the run failed; read on with: ./updraft logs {result['run_id']}")


def _parse_conf(text: str) -> dict[str, Any]:
    try:
        conf = json.loads(text)
    except ValueError as error:
        raise OperatorError(
            f"--conf is not JSON ({error}); for example: --conf '{{\"rounds\": 40}}'"
        ) from error
    if not isinstance(conf, dict):
        raise OperatorError(f"--conf must be a JSON object, came: {text}")
    return conf
