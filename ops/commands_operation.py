"""`doctor`: what an operator asks of a running environment."""

from __future__ import annotations

import typer

from ops.console import Environment, Json, OperatorError, show


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(doctor)


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
