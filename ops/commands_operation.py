"""`doctor`, `cost`, `sleep`, `wake`: what an operator asks of a running environment."""

from __future__ import annotations

from typing import Annotated

import typer

from ops.console import Environment, Json, OperatorError, show, step

HOURS_PER_WEEK = 168.0
DEFAULT_TASK_HOURS = 200.0
DEFAULT_AWAKE_HOURS_PER_WEEK = 50.0


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(doctor)
    app.command()(cost)
    app.command()(sleep)
    app.command()(wake)


def doctor(environment: Environment = "local", as_json: Json = False) -> None:
    """Look for the mistakes that otherwise cost a day, and say what to do about each."""
    from datetime import UTC, datetime

    from ops.doctor import report
    from ops.doctor.account import Account
    from ops.doctor.check import run_checks
    from ops.target import target_of

    outcomes = run_checks(report.CHECKS, Account(target_of(environment), datetime.now(UTC)))
    show(report.document(environment, outcomes), as_json, report.readable(outcomes))
    found = [outcome.check.id for outcome in outcomes if outcome.state == "found"]
    if found:
        raise OperatorError(f"found something wrong: {', '.join(found)}")


def cost(
    environment: Environment = "dev",
    load: Annotated[
        float, typer.Option("--load", min=0, help="How many hours all tasks of a month run, taken together.")
    ] = DEFAULT_TASK_HOURS,
    awake: Annotated[
        float,
        typer.Option(
            "--awake", min=0, max=HOURS_PER_WEEK, help="Hours a week awake, for the columns with sleep."
        ),
    ] = DEFAULT_AWAKE_HOURS_PER_WEEK,
    as_json: Json = False,
) -> None:
    """Estimate what an environment costs a month on AWS, line by line, beside MWAA. Nothing is called on AWS."""
    from ops import cdk
    from ops.cost import report
    from ops.cost.estimate import read_templates
    from ops.cost.model import Environment as Stacks
    from ops.target import target_of

    target = target_of(environment)
    with step("synthesizing the stacks"):
        assembly = cdk.synth(target)
    stacks = Stacks.of(read_templates(assembly))
    document = {"environment": environment} | report.estimate(
        stacks, task_hours=load, awake_hours_per_week=awake
    )
    show(document, as_json, report.readable(document))


NoWait = Annotated[bool, typer.Option("--no-wait", help="Ask for it and return; it goes on by itself.")]


def sleep(environment: Environment = "local", no_wait: NoWait = False, as_json: Json = False) -> None:
    """Put an environment to sleep: services to zero, the database stopped. A living training is waited for."""
    from ops import sleeping
    from ops.target import target_of

    result = sleeping.ask(target_of(environment), "sleep", wait=not no_wait)
    show(result, as_json, _told(result))


def wake(environment: Environment = "local", no_wait: NoWait = False, as_json: Json = False) -> None:
    """Wake an environment: the database first, then the services, until all of them are healthy."""
    from ops import sleeping
    from ops.target import target_of

    result = sleeping.ask(target_of(environment), "wake", wait=not no_wait)
    show(result, as_json, _told(result))


def _told(result: dict[str, object]) -> str:
    waits = f"; it waits: {result['waits_for']}" if result["waits_for"] else ""
    return f"{result['environment']} is {result['state']}{waits} ({result['seconds']} s)"
