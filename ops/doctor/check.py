"""What a check is, and how all of them are run: one that can't look doesn't keep the others from looking."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ops.console import OperatorError
from ops.doctor.account import Account


class NotApplicableError(Exception):
    """There is nothing here that the check could look at; says why."""


@dataclass(frozen=True)
class Finding:
    """What is wrong, with what came and what was expected; and what to do."""

    problem: str
    remedy: str


@dataclass(frozen=True)
class Check:
    """`looks_at` completes the sentence "looks at …"; `find` yields every finding."""

    id: str
    looks_at: str
    find: Callable[[Account], Iterable[Finding]]


@dataclass(frozen=True)
class Outcome:
    """`state` is `ok`, `found`, `skipped` (nothing to look at) or `blind` (the check could not look)."""

    check: Check
    state: str
    findings: tuple[Finding, ...] = ()
    reason: str = ""

    def document(self) -> dict[str, Any]:
        """The outcome as JSON."""
        return {
            "check": self.check.id,
            "looks_at": self.check.looks_at,
            "state": self.state,
            "findings": [vars(finding) for finding in self.findings],
            "reason": self.reason,
        }


def require_awake(account: Account) -> None:
    """Raise NotApplicableError while what the check looks at is down on purpose."""
    if account.sleep_state != "awake":
        raise NotApplicableError(f"the environment is {account.sleep_state}")


def run_checks(checks: Sequence[Check], account: Account) -> list[Outcome]:
    """Run every check, in order."""
    return [_run(check, account) for check in checks]


def _run(check: Check, account: Account) -> Outcome:
    try:
        findings = tuple(check.find(account))
    except NotApplicableError as error:
        return Outcome(check, "skipped", reason=str(error))
    except (ClientError, BotoCoreError, OperatorError) as error:
        return Outcome(check, "blind", reason=str(error).splitlines()[0])
    return Outcome(check, "found" if findings else "ok", findings)
