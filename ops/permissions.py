"""What roles did in the emulated account, and what AWS would have said to it."""

from __future__ import annotations

import json
import tomllib
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import URLError

from local.account.permission_record import ALLOWED, PATH, UNKNOWN, UNTOLD
from ops.console import OperatorError
from ops.target import local_paths
from stacks.aws_rules import reference

SECONDS = 60
REASONS = Path(__file__).with_name("permission_reasons.toml")


@dataclass(frozen=True)
class Call:
    """An action of a role on one resource, `count` times."""

    role: str
    action: str
    resource: str
    count: int


@dataclass(frozen=True)
class Grant:
    """What a role may do; `resource` as its policy has it. `because` is why it may, where a run may not need it."""

    role: str
    action: str
    resource: str
    because: str = ""


@dataclass(frozen=True)
class Reason:
    """Why roles whose names fit a pattern, after the environment's prefix, have grants that a run may not need."""

    role: str
    actions: tuple[str, ...]
    because: str

    def covers(self, role: str, action: str) -> bool:
        """Whether it holds for a grant; `role` without the prefix."""
        return fnmatchcase(role, self.role) and any(fnmatchcase(action, each) for each in self.actions)


@dataclass(frozen=True)
class Review:
    """`missing`: AWS would have answered AccessDenied. `unread`: nobody knows which permission these need.
    `unused`: grants that no call needed, of roles that did something, each with its reason. `unexplained`: those of
    them that have none."""

    calls: int
    missing: tuple[Call, ...]
    unread: tuple[Call, ...]
    unused: tuple[Grant, ...]
    unexplained: tuple[Grant, ...]


def recorded() -> dict[str, Any]:
    """The running account's record; raises OperatorError when it doesn't answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{local_paths().endpoint_url}{PATH}", timeout=SECONDS) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except (URLError, OSError, ValueError) as error:
        raise OperatorError(
            f"the local account does not answer: {error}. Start it with: ./updraft up"
        ) from error


def review(record: Mapping[str, Any], prefix: str) -> Review:
    """What a record says of the roles of the environment whose stacks' names begin with `prefix`."""
    missing, unread, used = [], [], set()
    calls = [call for call in record["calls"] if _name(call["role"]).startswith(prefix)]
    for call in calls:
        told = Call(_name(call["role"]), call["action"], call["resource"], call["count"])
        untold = call["verdict"] == UNTOLD and reference.takes_resource(call["action"])
        if call["verdict"] == ALLOWED or untold:
            used.add((told.role, told.action, call["grant"] or None))
        elif call["verdict"] == UNKNOWN:
            unread.append(told)
        else:
            missing.append(told)
    unused = {
        Grant(
            name,
            grant["action"],
            grant["resource"],
            _reason(name.removeprefix(f"{prefix}-"), grant["action"]),
        )
        for name, grants in ((_name(role), grants) for role, grants in record["grants"].items())
        if name.startswith(prefix)
        for grant in grants
        # A statement's actions and resources are multiplied out; IAM never joins a job's stop with a model, say.
        if reference.can_apply(grant["action"], grant["resource"])
        and not {(name, grant["action"], it) for it in (grant["resource"], None)} & used
    }
    return Review(
        calls=len(calls),
        missing=tuple(missing),
        unread=tuple(unread),
        unused=tuple(sorted(unused, key=str)),
        unexplained=tuple(sorted((grant for grant in unused if not grant.because), key=str)),
    )


@cache
def reasons() -> tuple[Reason, ...]:
    """The reasons as they are written down."""
    written = tomllib.loads(REASONS.read_text())["reason"]
    return tuple(Reason(each["role"], tuple(each["actions"]), each["because"]) for each in written)


def _reason(role: str, action: str) -> str:
    return next((reason.because for reason in reasons() if reason.covers(role, action)), "")


def _name(role_arn: str) -> str:
    return role_arn.rpartition("/")[2]
