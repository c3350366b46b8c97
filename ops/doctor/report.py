"""Every check in the order in which a person would look, and how the outcomes are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ops.doctor import broker, capacity, database, delivery, permissions, secrets, services
from ops.doctor.check import Check, Outcome

CHECKS: tuple[Check, ...] = (
    *services.CHECKS,
    *database.CHECKS,
    *broker.CHECKS,
    *secrets.CHECKS,
    *delivery.CHECKS,
    *capacity.CHECKS,
    *permissions.CHECKS,
)
MARKS = {"ok": "✓", "found": "✗", "skipped": "-", "blind": "?"}


def document(environment: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The outcomes as one JSON document."""
    return {
        "environment": environment,
        "healthy": not any(outcome.state == "found" for outcome in outcomes),
        "checks": [outcome.document() for outcome in outcomes],
    }


def readable(outcomes: Sequence[Outcome]) -> str:
    """One line for each check; below it what was found and what to do."""
    lines = []
    for outcome in outcomes:
        why = f" ({outcome.reason})" if outcome.reason else ""
        lines.append(f"{MARKS[outcome.state]} {outcome.check.id:<20} {outcome.check.looks_at}{why}")
        for finding in outcome.findings:
            lines += [f"    {finding.problem}", f"    → {finding.remedy}"]
    return "\n".join(lines)
