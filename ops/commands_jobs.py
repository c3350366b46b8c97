"""`jobs`: what ran on SageMaker."""

from __future__ import annotations

import typer

from ops.console import Environment, Json, show


def register(app: typer.Typer) -> None:
    """Add this group's command."""
    app.command(name="jobs")(list_jobs)


def list_jobs(environment: Environment = "local", as_json: Json = False) -> None:
    """Show this month's SageMaker jobs: whose they were, what they cost, who stopped them and why."""
    from ops import jobs
    from ops.target import target_of

    result = jobs.read(target_of(environment))
    show(result, as_json, jobs.readable(result))
