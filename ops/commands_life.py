"""`up`, `down`, `status`, `demo`: the life of a platform."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ops import engine as engines
from ops.console import Environment, Json, OperatorError, show, table


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(demo)


def up(
    environment: Environment = "local",
    engine: engines.Choice = None,
    pipelines: Annotated[
        bool,
        typer.Option(
            "--pipelines", help="Also make the heavy Python environments (Spark, torch) of pipelines."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Start the platform on this laptop and wait until every service is healthy."""
    from ops import laptop

    images = laptop.every_image() if pipelines else laptop.IMAGES
    result = laptop.up(environment, engine, images=images)
    show(
        result,
        as_json,
        _readable(result)
        + f"\n\nUp in {result['up_seconds']} s. Log in with: ./updraft status --credentials",
    )


def down(
    wipe: Annotated[
        bool, typer.Option("--wipe", help="Also remove the state: database, buckets, stacks.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Stop the platform on this laptop. Its state stays, unless it is wiped."""
    from ops import laptop

    result = laptop.down(wipe=wipe)
    text = "Stopped." if result["stopped"] else "Nothing was running."
    show(result, as_json, text + (" State removed." if wipe else ""))


def status(
    environment: Environment = "local",
    credentials: Annotated[
        bool, typer.Option("--credentials", help="Also show the log-ins of the UIs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what runs, how healthy it is, and where the UIs are."""
    from ops import laptop
    from ops.target import target_of

    target = target_of(environment)
    result = laptop.status(target)
    if credentials:
        result["credentials"] = target.credentials()
    show(result, as_json, _readable(result))


def demo(environment: Environment = "local", engine: engines.Choice = None, as_json: Json = False) -> None:
    """Deploy everything into the emulated account, push the DAGs and run a SageMaker training to its end."""
    from ops import demo as demo_run

    result = demo_run.run(environment, engine)
    show(result, as_json, demo_run.readable(result))
    if result["dag_run"]["state"] != "success":
        raise OperatorError(
            f"the run ended {result['dag_run']['state']}: ./updraft logs {result['dag_run']['run_id']}"
        )


def _readable(result: dict[str, Any]) -> str:
    lines = [table(result["services"], ["service", "wanted", "running", "healthy"]), ""]
    lines += [f"{name:<10} {url}" for name, url in result["urls"].items()]
    lines += [
        f"{name:<10} user {login['username']}, password {login['password']}"
        for name, login in result.get("credentials", {}).items()
    ]
    if result.get("memory_mib") is not None:
        lines.append(f"memory     {result['memory_mib']} MiB")
    return "\n".join(lines)
