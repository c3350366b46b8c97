"""Actions and the resources that they take: AWS's service authorization reference, in the form that cfn-lint carries.

https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def _services() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (files("cfnlint") / "data" / "AdditionalSpecs" / "Policies.json").read_text()
    )
    return found


def is_action(action: str) -> bool:
    """Whether AWS knows an action; without regard to case, as IAM reads it."""
    service, _, operation = action.partition(":")
    return operation.lower() in _services().get(service.lower(), {}).get("Actions", {})


def takes_resource(action: str) -> bool:
    """Whether a grant of an action may name a resource; one that takes none is granted on `*` or not at all."""
    return bool(_resource_types(action))


def resource_kinds(action: str) -> frozenset[str]:
    """The names of the resource types that an action takes, such as `bucket`."""
    return frozenset(_resource_types(action))


@cache
def resource_patterns(action: str) -> tuple[str, ...]:
    """The forms of the ARNs that an action takes, with `*` for each part that is free."""
    service = action.partition(":")[0].lower()
    # The types' names differ in case between the two lists.
    known = {name.lower(): body for name, body in _services().get(service, {}).get("Resources", {}).items()}
    formats = [
        text for name in _resource_types(action) for text in known.get(name.lower(), {}).get("ARNFormats", [])
    ]
    return tuple(re.sub(r"\$\{[^}]*\}", "*", text).replace(".*", "*") for text in formats)


def _resource_types(action: str) -> list[str]:
    service, _, operation = action.partition(":")
    actions = _services().get(service.lower(), {}).get("Actions", {})
    found: list[str] = actions.get(operation.lower(), {}).get("Resources", [])
    return found
