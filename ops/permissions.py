"""What roles did in the emulated account, and what AWS would have said to it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError

from local.account.permission_record import ALLOWED, PATH, UNKNOWN, UNTOLD
from ops.console import OperatorError
from ops.target import local_paths
from stacks.aws_rules import reference

SECONDS = 60


@dataclass(frozen=True)
class Call:
    """An action of a role on one resource, `count` times."""

    role: str
    action: str
    resource: str
    count: int


@dataclass(frozen=True)
class Grant:
    """What a role may do; `resource` as its policy has it."""

    role: str
    action: str
    resource: str


@dataclass(frozen=True)
class Review:
    """`missing`: AWS would have answered AccessDenied. `unread`: nobody knows which permission these need.
    `unused`: grants that no call needed, of roles that did something."""

    calls: int
    missing: tuple[Call, ...]
    unread: tuple[Call, ...]
    unused: tuple[Grant, ...]


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
    unused = [
        Grant(_name(role), grant["action"], grant["resource"])
        for role, grants in record["grants"].items()
        if _name(role).startswith(prefix)
        for grant in grants
        if not {(_name(role), grant["action"], it) for it in (grant["resource"], None)} & used
    ]
    return Review(len(calls), tuple(missing), tuple(unread), tuple(sorted(unused, key=str)))


def _name(role_arn: str) -> str:
    return role_arn.rpartition("/")[2]
